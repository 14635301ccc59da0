"""JSON that any reader takes: numbers that are not finite become the strings NaN, Infinity and -Infinity, as in protobuf's JSON."""

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(value: Any) -> str:
    """Indented JSON with a line end."""
    return json.dumps(_named(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(value: str | float) -> float:
    """The number that such a value stands for. Raises ValueError for other text."""
    return float(value)


def _named(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {name: _named(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_named(entry) for entry in value]
    return value
