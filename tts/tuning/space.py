"""The search space: the knobs named by `tuning.knobs`, with the ranges that the configuration gives them."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tts.config import Choices, Config, Search, knobs
from tts.config.load import flatten, override
from tts.errors import UsageError

Space = dict[str, BaseDistribution]


def search_space(names: Sequence[str]) -> Space:
    """One Optuna distribution for each named knob.

    Raises:
        UsageError: A name is no knob, or a knob without a search range; the nearest searchable knob is given.
    """
    known = {knob.path: knob for knob in knobs(Config)}
    searchable = [path for path, knob in known.items() if knob.search is not None]
    space: Space = {}
    for name in names:
        knob = known.get(name)
        if knob is None or knob.search is None:
            what = "is not a knob" if knob is None else "is a knob without a search range"
            close = difflib.get_close_matches(name, searchable, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]}?" if close else f"searchable are {', '.join(searchable)}"
            raise UsageError(f"tuning.knobs: {name!r} {what}; {hint}")
        space[name] = _distribution(knob.search, whole=knob.type is int)
    return space


def default_params(config: Config, space: Space) -> dict[str, Any]:
    """The values that `config` itself holds for the searched knobs: the study's first trial.

    Raises:
        UsageError: One of them lies outside its search range, so the study could never find it again.
    """
    values = flatten(config)
    for name, distribution in space.items():
        if not distribution._contains(distribution.to_internal_repr(values[name])):  # noqa: SLF001  # Optuna has no public test
            raise UsageError(
                f"{name} is {values[name]!r}, outside its search range ({show(distribution)}); set it inside, or leave it out of tuning.knobs"
            )
    return {name: values[name] for name in space}


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


def _distribution(search: Search | Choices, *, whole: bool) -> BaseDistribution:
    if isinstance(search, Choices):
        return CategoricalDistribution(search.values)
    if whole:
        return IntDistribution(int(search.low), int(search.high), log=search.log, step=int(search.step or 1))
    return FloatDistribution(search.low, search.high, log=search.log, step=search.step)
