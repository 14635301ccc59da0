"""metrics.jsonl: what a run measured, one JSON object a line.

Each line has `kind` ("train" or "validation") and `step`. A value that is not finite is null. A resumed run cuts the file back to its
checkpoint and so ends with the lines of a run that was never stopped, but for WALL_CLOCK_FIELDS.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tts.training.step_clock import PARTS
from tts.training.step_log import StepLog

Kind = Literal["train", "validation"]

WALL_CLOCK_FIELDS = ("seconds", "frames_per_second", *(f"{part}_seconds" for part in PARTS))
"""The fields that differ between two runs of the same configuration."""


class MetricsLog:
    """Appends lines to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = StepLog(path, lambda values: isinstance(values["kind"], str))

    def append(self, kind: Kind, step: int, values: Mapping[str, float]) -> None:
        """Raises CannotWriteError."""
        self._log.write({"kind": kind, "step": step} | {name: value if math.isfinite(value) else None for name, value in values.items()})

    def cut(self, step: int, *, validated: bool) -> list[dict[str, Any]]:
        """Removes the lines after `step`, its validation where it is not `validated`, and a last line that a kill left torn.

        The lines that stay. Raises DataError, CannotWriteError.
        """
        return [_numbers(values) for values in self._log.cut(step, lambda line: validated or (line["kind"], line["step"]) != ("validation", step))]

    def read(self) -> list[dict[str, Any]]:
        """The lines; null reads as NaN. Raises DataError."""
        return [_numbers(values) for values in self._log.read()]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; null reads as NaN. Raises DataError."""
    return MetricsLog(path).read()


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}
