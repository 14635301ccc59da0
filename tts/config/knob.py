"""What a knob is: a field of a frozen section, with bounds, unit and, where it may be searched, its range."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Search:
    """Range in which tuning looks for a number; `log` spreads the draws evenly over the orders of magnitude."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class Choices:
    """Values among which tuning chooses."""

    values: tuple[Any, ...]


UNWRITABLE = ("Cc", "Cs", "Cn", "Zl", "Zp")
"""Unicode's categories of characters that mean nothing in a knob's text and that YAML, by which `config.json` is read, refuses or changes."""


class Section(BaseModel):
    """Base of every group of knobs: frozen, unknown names refused, defaults checked like any other value."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_slip(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would take true as 1: `steps: true` is a slip, not one step.
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation in (int, float):
            raise ValueError(f"must be a number, got {str(value).lower()}")
        if odd := next((letter for letter in _letters(value) if unicodedata.category(letter) in UNWRITABLE), None):
            raise ValueError(f"must not hold control characters, got U+{ord(odd):04X}")
        return value


@dataclass(frozen=True)
class Knob:
    """One field of the configuration, addressed as `section.name`."""

    path: str
    default: Any
    description: str
    type: Any
    search: Search | Choices | None


def knobs(section: type[BaseModel], prefix: str = "") -> Iterator[Knob]:
    """Every knob of a section and of the sections inside it, in the order of their definition."""
    for name, field in section.model_fields.items():
        path = f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from knobs(field.annotation, f"{path}.")
        else:
            yield Knob(path, field.get_default(call_default_factory=True), field.description or "", field.annotation, _search(field))


def _search(field: FieldInfo) -> Search | Choices | None:
    return next((m for m in field.metadata if isinstance(m, Search | Choices)), None)


def _letters(value: Any) -> Iterator[str]:
    """Of a text, or of the texts in a list."""
    if isinstance(value, str):
        yield from value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _letters(part)
