"""How long the parts of a step take: on a CPU by its clock, on CUDA by events in the stream, for which no step waits."""

import itertools
import math
import time
from typing import Literal

import torch

Part = Literal["data", "forward", "backward", "update"]
PARTS: tuple[Part, ...] = ("data", "forward", "backward", "update")
"""data: until the batch is collated and copied to the device, by the host's clock. forward: with the losses. backward: with the sum over ranks.
update: the check for what is not finite, clipping, Adam."""

UNREAD = 64
"""Steps whose events are kept before they are read, at most: those of a rank that writes no lines, or of a long training.log_interval."""

Mark = float | torch.cuda.Event


class StepClock:
    """Times of the parts of a step, added up over steps."""

    def __init__(self, device: torch.device | None = None) -> None:
        """For steps on `device`, or else on the CPU."""
        self._on_cuda = device is not None and device.type == "cuda"
        self._begun = math.nan
        self._waited = math.nan
        self._ends: dict[Part, Mark] = {}
        self._finished: list[dict[Part, Mark]] = []
        self._clear()

    def start(self) -> None:
        """A step begins; one that was begun and never came to its end does not count."""
        self._ends = {}
        self._begun = time.perf_counter()

    def end_of(self, part: Part) -> None:
        """All work of this part is done, or given to the device. A step that was not started is not measured."""
        if part == "data":
            self._waited = time.perf_counter() - self._begun
        elif "data" not in self._ends:
            return
        self._ends[part] = self._mark()
        if part == "update":
            self._totals["data"] += self._waited
            self._finished.append(self._ends)
            self._ends = {}
            if len(self._finished) == UNREAD:
                self._read()

    def means(self) -> dict[str, float]:
        """Seconds a step, as `data_seconds` and so on, since this was last asked; NaN where there was no step. Waits for the last step's end."""
        self._read()
        means = {f"{part}_seconds": round(total / self._steps, 6) if self._steps else math.nan for part, total in self._totals.items()}
        self._clear()
        return means

    def _clear(self) -> None:
        self._steps = 0
        self._totals = dict.fromkeys(PARTS, 0.0)

    def _mark(self) -> Mark:
        if not self._on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        event.record()
        return event

    def _read(self) -> None:
        for ends in self._finished:
            for before, part in itertools.pairwise(PARTS):
                self._totals[part] += _between(ends[before], ends[part])
        self._steps += len(self._finished)
        self._finished = []


def _between(begin: Mark, end: Mark) -> float:
    """Seconds."""
    if isinstance(begin, float) or isinstance(end, float):
        return float(end) - float(begin)  # type: ignore[arg-type]  # a clock's marks are all of one kind
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000
