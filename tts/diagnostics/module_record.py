"""modules.jsonl: gradients and updates of each part of the network over the steps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts.diagnostics.json_files import number, read_lines

FIELDS = ("gradient_norm", "update_ratio", "non_finite")

Columns = dict[str, tuple[float, ...]]
"""Part of the network to a value for each line; NaN where there is none."""


@dataclass(frozen=True)
class ModuleRecord:
    """The lines as columns."""

    steps: tuple[int, ...]
    gradient_norm: Columns
    """Before clipping."""
    update_ratio: Columns
    """Norm of what a step added to the weights, over their norm."""
    non_finite: Columns
    """Gradients that were NaN or infinite."""


def read_modules(path: Path) -> ModuleRecord | None:
    """None where there is no line. Raises DataError."""
    lines = read_lines(path, lambda values: all(isinstance(values.get(field), dict) for field in FIELDS), "step or a field by module is missing")
    if not lines:
        return None
    fields = {field: _columns(lines, field) for field in FIELDS}
    return ModuleRecord(tuple(int(line["step"]) for line in lines), **fields)


def _columns(lines: list[dict[str, Any]], field: str) -> Columns:
    names = dict.fromkeys(name for line in lines for name in line[field])
    return {name: tuple(number(line[field].get(name)) for line in lines) for name in names}
