"""`tuning.ranges` checked against the knobs: what a study searches must be what the configuration allows."""

from decimal import Decimal
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import TypeAdapter, ValidationError

from tts.config import Config, Knob, Range
from tts.errors import UsageError

_SIGNS = {Gt: (">", "gt"), Ge: (">=", "ge"), Lt: ("<", "lt"), Le: ("<=", "le")}


def spread(knob: Knob, given: Range) -> BaseDistribution:
    """The distribution of a knob under its entry in `tuning.ranges`.

    Raises:
        UsageError: The range leaves the knob's bounds, its kind does not fit the knob's, or it repeats a value.
    """
    if given.values:
        values = tuple(_allowed(knob, given, value) for value in given.values)
        if len(set(values)) < len(values):
            raise _refuse(knob, given, "a value stands there more than once")
        return CategoricalDistribution(values)
    if knob.type not in (int, float):
        raise _refuse(knob, given, "this knob is no number: give values")
    low, high = _allowed(knob, given, given.low), _allowed(knob, given, given.high)
    if knob.type is int:
        if given.step is not None and given.step % 1:
            raise _refuse(knob, given, f"the knob takes whole numbers, step is {given.step:g}")
        _check_steps(knob, given)
        return IntDistribution(low, high, log=given.log, step=int(given.step or 1))
    _check_steps(knob, given)
    return FloatDistribution(low, high, log=given.log, step=given.step)


def _allowed(knob: Knob, given: Range, value: Any) -> Any:
    """The value as the knob's type holds it."""
    bounds = _bounds(knob)
    if isinstance(value, bool) != (knob.type is bool):  # pydantic would take true as 1
        raise _refuse(knob, given, f"{value!r} is no {_kind(knob)}")
    if knob.type is int and isinstance(value, float) and value % 1:
        raise _refuse(knob, given, f"the knob takes whole numbers, got {value:g}")
    try:
        kind: Any = Annotated[knob.type, *bounds] if bounds else knob.type
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        allowed = " and ".join(f"{_SIGNS[type(bound)][0]} {getattr(bound, _SIGNS[type(bound)][1]):g}" for bound in bounds) or _kind(knob)
        raise _refuse(knob, given, f"{value!r} is outside what the knob allows: {allowed}") from None


def _bounds(knob: Knob) -> list[Any]:
    section, name = knob.path.split(".")
    field = Config.model_fields[section].annotation.model_fields[name]  # type: ignore[union-attr]
    return [bound for bound in field.metadata if isinstance(bound, Gt | Ge | Lt | Le)]


def _kind(knob: Knob) -> str:
    if get_origin(knob.type) is Literal:
        return "one of " + ", ".join(map(str, get_args(knob.type)))
    return {int: "whole number", float: "number", bool: "true or false", str: "text"}.get(knob.type, str(knob.type))


def _check_steps(knob: Knob, given: Range) -> None:
    if given.step is not None and (Decimal(str(given.high)) - Decimal(str(given.low))) % Decimal(str(given.step)):
        raise _refuse(knob, given, f"{given.high:g} is no whole number of steps of {given.step:g} from {given.low:g}")


def _refuse(knob: Knob, given: Range, why: str) -> UsageError:
    searched = f"values {', '.join(map(repr, given.values))}" if given.values else f"{given.low:g} to {given.high:g}"
    return UsageError(f"tuning.ranges: {knob.path}, {searched}: {why}")
