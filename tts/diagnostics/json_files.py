"""JSON that a run left behind: objects, and files of one object a line. Damage is named."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tts.errors import DataError


def read_object(path: Path) -> dict[str, Any]:
    """Raises DataError for what is no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it from a copy, or remove it") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} should hold a JSON object, got {type(value).__name__}; restore it from a copy")
    return value


def read_lines(path: Path, measured: Callable[[dict[str, Any]], bool], wrong: str) -> list[dict[str, Any]]:
    """The lines of a file, none where there is no file; each must have a whole number as `step` and satisfy `measured`.

    Raises DataError naming a line that does not, with what is `wrong` with it then.
    """
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = []
    # A run that is under way, or was killed, may leave a torn last line: it has no end.
    for number, line in enumerate((text for text in path.read_bytes().splitlines(keepends=True) if text.endswith(b"\n")), start=1):
        try:
            values = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number} is not a measurement ({error}); remove the line") from error
        if not isinstance(values, dict) or not isinstance(values.get("step"), int) or not measured(values):
            raise DataError(f"{path}, line {number} is not a measurement ({wrong}); remove the line")
        found.append(values)
    return found


def number(value: Any) -> float:
    """A figure; NaN for null and for what is none."""
    return float(value) if isinstance(value, int | float) else math.nan
