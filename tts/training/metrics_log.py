"""metrics.jsonl: what a run measured, one JSON object a line.

Each line has `kind` ("train" or "validation") and `step`. A value that is not finite is null. A resumed run cuts the file back to its
checkpoint and so ends with the lines of a run that was never stopped, but for WALL_CLOCK_FIELDS.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from tts.errors import DataError
from tts.storage import reporting, write_text

Kind = Literal["train", "validation"]

WALL_CLOCK_FIELDS = ("seconds", "frames_per_second")
"""The fields that differ between two runs of the same configuration."""


class MetricsLog:
    """Appends lines to a file. A line is in the file whole or not at all, but for a kill in the middle of a write, which `cut` repairs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: Kind, step: int, values: Mapping[str, float]) -> None:
        """Raises CannotWriteError."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = json.dumps({"kind": kind, "step": step, **finite}, allow_nan=False).encode() + b"\n"
        # Unbuffered: what a buffer still holds after a failed write would follow when the file is closed.
        with reporting(self.path), self.path.open("ab", buffering=0) as file:
            length = file.tell()
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(length)
                raise

    def cut(self, step: int) -> list[dict[str, Any]]:
        """Removes the lines after `step`, and a last line that a kill left torn. The lines that stay. Raises DataError, CannotWriteError."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        kept = [(line, values) for line, values in zip(whole, _parse(self.path, whole), strict=True) if values["step"] <= step]
        if len(kept) < len(lines) or not self.path.exists():
            write_text(self.path, b"".join(line for line, _ in kept).decode())
        return [_numbers(values) for _, values in kept]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; null reads as NaN. Raises DataError."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: {path.parent} holds no training run") from None
    # A run that is under way, or was killed, may leave a torn last line.
    return [_numbers(values) for values in _parse(path, [line for line in lines if line.endswith(b"\n")])]


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}


def _parse(path: Path, lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            measured = isinstance(values, dict) and isinstance(values["step"], int) and isinstance(values["kind"], str)
        except (ValueError, KeyError):
            measured = False
        if not measured:
            raise DataError(f"{path}, line {number} is not a measurement: {line[:80]!r}; remove the line, or train into another folder")
        yield values
