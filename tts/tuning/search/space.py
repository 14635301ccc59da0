"""The search space: the knobs named by `tuning.knobs`, with their own ranges or those of `tuning.ranges`, some only under a condition."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tts.config import OBJECTIVES, Choices, Condition, Config, Knob, Range, Search, TuningConfig, knobs
from tts.config.load import flatten, override
from tts.errors import UsageError
from tts.tuning.search.ranges import spread

Space = dict[str, BaseDistribution]

# Whatever else a knob of these sections says, a trial can be trained with it on the study's features.
_SECTIONS = tuple(f"{section}." for section in ("model", *OBJECTIVES, "optimiser"))

# Knobs, or sections of them, that do nothing while another knob is 0.
_NEEDED = {
    "double_decoder.": "model.coarse_reduction_factor",
    "mutual_information.": "model.recogniser",
    "model.recogniser_dropout": "model.recogniser",
    "model.style_heads": "model.style_tokens",
    "model.style_width": "model.style_tokens",
}


def search_space(tuning: TuningConfig) -> Space:
    """One Optuna distribution for each knob of `tuning.knobs`, those that decide over others before them.

    Raises:
        UsageError: A name is no knob, or has no range (the nearest searchable one is given); a range reaches beyond the knob's bounds; a
            condition names a knob that is not searched, can never hold, or hangs on itself.
    """
    known = {knob.path: knob for knob in knobs(Config)}
    ranges = {entry.knob: entry for entry in tuning.ranges}
    for name in ranges:
        if name not in tuning.knobs:
            raise UsageError(f"tuning.ranges: {name!r} is not searched; {_nearest(name, tuning.knobs, 'tuning.knobs')}")
    space = {name: _distribution(name, known, ranges.get(name)) for name in tuning.knobs}
    for condition in tuning.conditions:
        _check(condition, space)
    return {name: space[name] for name in _deciders_first(tuning)}


def suggest(trial: optuna.Trial, tuning: TuningConfig, space: Space) -> dict[str, Any]:
    """Draws a trial's values. A knob whose condition is false is left out: it keeps the configuration's value.

    So is one whose decider is left out itself.
    """
    conditions = {condition.knob: condition for condition in tuning.conditions}
    params: dict[str, Any] = {}
    for name in _deciders_first(tuning):
        if name not in conditions or holds(conditions[name], params):
            params[name] = _draw(trial, name, space[name])
    return params


def holds(condition: Condition, params: Mapping[str, Any]) -> bool:
    """Whether a knob is searched beside these values of the knobs that decide."""
    if condition.when not in params:
        return False
    value = params[condition.when]
    above = condition.above is None or value > condition.above
    below = condition.below is None or value < condition.below
    return above and below and (not condition.among or value in condition.among)


def default_params(config: Config, space: Space) -> dict[str, Any]:
    """The values that `config` itself holds for the knobs that are searched beside them: the study's first trial.

    Raises:
        UsageError: One of them lies outside its search range, so the study could never find it again; or an end of a range breaks a rule of
            the configuration; or a knob does nothing without another that is neither set nor searched.
    """
    values = flatten(config)
    conditions = {condition.knob: condition for condition in config.tuning.conditions}
    params: dict[str, Any] = {}
    for name in _deciders_first(config.tuning):
        distribution = space[name]
        needed = next((other for start, other in _NEEDED.items() if name.startswith(start)), None)
        if needed and needed not in space and not values[needed]:
            raise UsageError(f"tuning.knobs: {name} does nothing while {needed} is 0; set that, search it too, or leave {name} out")
        for edge in _edges(distribution):
            override(config, {name: edge}, "tuning.ranges")
        if name in conditions and not holds(conditions[name], params):
            continue
        value = _plain(values[name])
        if not contains(distribution, value):
            raise UsageError(f"{name} is {value!r}, outside its search range ({show(distribution)}); set it inside, or leave it out of tuning.knobs")
        params[name] = value
    return params


def apply(config: Config, params: Mapping[str, Any]) -> Config:
    """`config` with a trial's values. Raises UsageError where a value breaks a rule of the configuration."""
    return override(config, params, "trial")


def show(distribution: BaseDistribution) -> str:
    """A range in words."""
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(str(value) for value in distribution.choices)
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return f"{distribution.low:g} to {distribution.high:g}{', log' if distribution.log else ''}"
    raise TypeError(f"no words for {distribution!r}")


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value lies in a range."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))  # noqa: SLF001  # Optuna has no public test
    except (ValueError, TypeError):  # none of the choices; no number
        return False


def _distribution(name: str, known: Mapping[str, Knob], given: Range | None) -> BaseDistribution:
    knob = known.get(name)
    searchable = [path for path, found in known.items() if found.search is not None]
    if knob is None:
        raise UsageError(f"tuning.knobs: {name!r} is not a knob; {_nearest(name, searchable, 'searchable')}")
    if given is not None and (knob.search is not None or name.startswith(_SECTIONS)):
        return spread(knob, given)
    if knob.search is None:
        how = f"{_nearest(name, searchable, 'searchable')}{', or give it one in tuning.ranges' if name.startswith(_SECTIONS) else ''}"
        raise UsageError(f"tuning.knobs: {name!r} is a knob without a search range; {how}")
    if isinstance(knob.search, Choices):
        return CategoricalDistribution(knob.search.values)
    return _numbers(knob.search, whole=knob.type is int)


def _numbers(search: Search, *, whole: bool) -> BaseDistribution:
    if whole:
        return IntDistribution(int(search.low), int(search.high), log=search.log, step=int(search.step or 1))
    return FloatDistribution(search.low, search.high, log=search.log, step=search.step)


def _check(condition: Condition, space: Space) -> None:
    where = f"tuning.conditions: {condition.knob!r}"
    for name in (condition.knob, condition.when):
        if name not in space:
            raise UsageError(f"{where}: {name!r} is not searched; {_nearest(name, list(space), 'tuning.knobs')}")
    decider = space[condition.when]
    possible: Sequence[object] = ()
    strange: list[Any] = []
    words = f"of {condition.when} ({show(decider)})"
    if isinstance(decider, CategoricalDistribution):
        if (condition.above, condition.below) != (None, None) and any(isinstance(value, str | bool) for value in decider.choices):
            raise UsageError(f"{where}: above and below need numbers, not the values {words}; use among")
        possible = [value for value in decider.choices if holds(condition, {condition.when: value})]
        strange = [value for value in condition.among if value not in decider.choices]
    elif isinstance(decider, FloatDistribution) and condition.among:
        raise UsageError(f"{where}: among would never be met exactly {words}; use above and below, or give that knob values in tuning.ranges")
    elif isinstance(decider, FloatDistribution | IntDistribution):
        possible = _possible(condition, decider)
        strange = [value for value in condition.among if not contains(decider, value)]
    if strange or not possible:
        what = f"among has {', '.join(map(repr, strange))}, which is no value" if strange else "never holds for any value"
        raise UsageError(f"{where}: the condition {what} {words}")


def _possible(condition: Condition, decider: FloatDistribution | IntDistribution) -> list[float]:
    """Some values of the range that meet the condition, if any do."""
    if isinstance(decider, IntDistribution):
        return [value for value in range(decider.low, decider.high + 1, decider.step) if holds(condition, {condition.when: value})]
    low = decider.low if condition.above is None else max(decider.low, condition.above)
    high = decider.high if condition.below is None else min(decider.high, condition.below)
    return [value for value in (low, (low + high) / 2, high) if decider.low <= value <= decider.high and holds(condition, {condition.when: value})]


def _deciders_first(tuning: TuningConfig) -> list[str]:
    """The names of `tuning.knobs`, each after the knob that decides over it. Raises UsageError where knobs decide over each other."""
    decides = {condition.knob: condition.when for condition in tuning.conditions}
    order: list[str] = []
    for name in tuning.knobs:
        chain = [name]
        while chain[-1] in decides and chain[-1] not in order:
            if decides[chain[-1]] in chain:
                raise UsageError(f"tuning.conditions: {' hangs on '.join([*chain, decides[chain[-1]]])}; a knob cannot decide over itself")
            chain.append(decides[chain[-1]])
        order += [link for link in reversed(chain) if link not in order]
    return order


def _draw(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    raise TypeError(f"no draw from {distribution!r}")


def _edges(distribution: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return (distribution.low, distribution.high)
    raise TypeError(f"no edges of {distribution!r}")


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _nearest(name: str, known: tuple[str, ...] | list[str], what: str) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {close[0]}?" if close else f"{what} {'are' if what == 'searchable' else 'has'} {', '.join(known)}"
