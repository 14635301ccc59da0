"""A run at one moment, and what happened between two of them. Pure but for `Watcher`, which reads the files."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tts.diagnostics.findings import Finding, findings
from tts.diagnostics.measured import Measured, measure
from tts.diagnostics.page import show
from tts.diagnostics.run_record import RunRecord, Series, read_run

T = TypeVar("T")

RECENT = 20
"""Log lines from which the speed is taken."""
SNAPSHOTS = 3
"""Newest snapshots that are measured."""


@dataclass(frozen=True)
class Glance:
    """What the view shows."""

    record: RunRecord
    last: Measured | None
    statements: tuple[Finding, ...]
    silent_for: float
    """Seconds since a file of the run changed."""

    @property
    def name(self) -> str:
        """Of the run."""
        return self.record.run.resolve().name

    @property
    def step(self) -> int:
        """The newest that is known: run.json is written with checkpoints only."""
        return max(self.record.step, *(series.steps[-1] for series in (self.record.train, self.record.validation) if series), 0)

    @property
    def steps(self) -> int:
        """To be made in all."""
        return self.record.config.training.steps

    @property
    def seconds_left(self) -> float | None:
        """If the steps go on as the last ones did; None where that is not known, or none are left to come."""
        train = self.record.train
        seconds = train.columns.get("seconds", ())[-RECENT:]
        steps = train.steps[-len(seconds) :] if seconds else ()
        if self.record.state != "running" or len(steps) < 2 or not seconds[-1] > seconds[0]:
            return None
        return (self.steps - self.step) * (seconds[-1] - seconds[0]) / (steps[-1] - steps[0])

    @property
    def ended(self) -> bool:
        """Whether nothing will follow: a run that was stopped may go on, one that diverged or finished does not."""
        return self.record.state in {"finished", "diverged"}


class Watcher:
    """Reads a run again and again; a snapshot that was measured is not measured again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._measured: dict[tuple[str, int], Measured] = {}

    def glance(self) -> Glance:
        """The run now. Raises DataError for what is no run, or is damaged."""
        record = read_run(self._folder)
        keys = [(path.name, path.stat().st_mtime_ns) for path in record.snapshots[-SNAPSHOTS:]]
        self._measured = {key: self._measured.get(key) or measure(self._folder / "snapshots" / key[0]) for key in keys}
        measured = list(self._measured.values())
        last = measured[-1] if measured else None
        return self.aged(Glance(record, last, tuple(findings(record, last, earlier=measured[:-1])), 0.0))

    def aged(self, glance: Glance) -> Glance:
        """The same with the time since a file changed, as it is now."""
        files = [self._folder / name for name in ("run.json", "metrics.jsonl")]
        changed = max((path.stat().st_mtime for path in files if path.is_file()), default=time.time())
        return replace(glance, silent_for=max(0.0, time.time() - changed))


def happened(before: Glance | None, now: Glance) -> list[str]:
    """What is worth a line: validations, skipped updates, restarts, findings that are no good news, another state."""
    old = before.record if before else None
    lines = [f"{now.name}: {now.record.state} at step {now.step:,} of {now.steps:,}"] if old is None or old.state != now.record.state else []
    lines += [
        f"skipped the update of step {item['step']:,}: {item['kind']} {item['name']}"
        for item in _new(old.anomalies if old else (), now.record.anomalies)
    ]
    lines += [
        f"restart {item.number}: from step {item.noticed_step:,} back to {item.back_to_step:,}, {item.trigger}; {item.changes}"
        for item in _new(old.restarts if old else (), now.record.restarts)
    ]
    validated = old.validation.steps[-1] if old and old.validation else 0
    if now.record.validation and now.record.validation.steps[-1] > validated:
        lines.append(f"step {now.record.validation.steps[-1]:,} validated: {figures(now.record.validation, VALIDATED)}")
    known = {finding.code for finding in before.statements} if before else set()
    for finding in now.statements:
        if finding.level != "good" and finding.code not in known:
            lines.append(f"{finding.level}: {finding.text}" + (f" {finding.advice}" if finding.advice else ""))
    return lines


VALIDATED = {"mel_loss": "mel loss", "gate_loss": "gate loss", "attention_diagonality": "diagonality", "gate_stop_error": "stop error"}
TRAINED = {"loss": "loss", "gradient_norm": "gradient norm", "frames_per_second": "frames/s"}


def figures(series: Series, names: dict[str, str]) -> str:
    """The newest values of some columns, as one text."""
    return ", ".join(f"{label} {show(series.last(name))}" for name, label in names.items() if name in series.columns)


def summary(now: Glance) -> str:
    """A line for whoever has no terminal."""
    left = "" if now.seconds_left is None else f", about {duration(now.seconds_left)} left"
    return f"step {now.step:,} of {now.steps:,}{left}: {figures(now.record.train, TRAINED)}"


def duration(seconds: float) -> str:
    """As in 2 h 05 min, 3 min 20 s, 7 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _new(before: Sequence[T], now: Sequence[T]) -> Sequence[T]:
    return now[len(before) :]


BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """Means of neighbours as bars between the lowest and the highest; a space where none is finite."""
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    groups = [values[len(values) * place // count : len(values) * (place + 1) // count] for place in range(count)]
    means = [_mean([value for value in group if math.isfinite(value)]) for group in groups]
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        return " " * count
    low, high = min(finite), max(finite)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] if math.isfinite(mean) else " " for mean in means)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
