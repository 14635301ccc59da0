"""Files with one JSON object a line, each with the step that it tells of: metrics.jsonl and modules.jsonl.

A line is in the file whole or not at all, but for a kill in the middle of a write: the torn line has no end, is not read, and is cut off on resuming.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tts.errors import DataError
from tts.storage import reporting, write_text

Line = dict[str, Any]


class StepLog:
    """Appends lines to a file, and cuts it back to a step."""

    def __init__(self, path: Path, measured: Callable[[Line], bool]) -> None:
        """`measured` tells an object with an int `step` that is a line of this file from one that is not; it may raise KeyError."""
        self.path, self._measured = path, measured

    def write(self, values: Mapping[str, Any]) -> None:
        """Appends a line. Raises CannotWriteError, and ValueError for a number that is not finite."""
        line = json.dumps(values, ensure_ascii=False, allow_nan=False).encode() + b"\n"
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

    def cut(self, step: int, stays: Callable[[Line], bool] = lambda _: True) -> list[Line]:
        """Removes the lines after `step`, those of which `stays` is false, and a last line that a kill left torn.

        The lines that stay. Raises DataError, CannotWriteError.
        """
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        kept = [(line, values) for line, values in zip(whole, self._parse(whole), strict=True) if values["step"] <= step and stays(values)]
        if len(kept) < len(lines) or not self.path.exists():
            write_text(self.path, b"".join(line for line, _ in kept).decode())
        return [values for _, values in kept]

    def read(self) -> list[Line]:
        """All lines but a torn last one, which a run that is under way, or was killed, may leave. Raises DataError."""
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            raise DataError(f"{self.path} does not exist: {self.path.parent} holds no training run") from None
        return list(self._parse([line for line in lines if line.endswith(b"\n")]))

    def _parse(self, lines: list[bytes]) -> Iterator[Line]:
        for number, line in enumerate(lines, start=1):
            try:
                values = json.loads(line)
                measured = isinstance(values, dict) and isinstance(values["step"], int) and self._measured(values)
            except (ValueError, KeyError):
                measured = False
            if not measured:
                raise DataError(f"{self.path}, line {number} is not a measurement: {line[:80]!r}; remove the line, or train into another folder")
            yield values
