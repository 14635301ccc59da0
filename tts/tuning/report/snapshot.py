"""A study under way at one moment, and what happened between two of them. Pure: whoever shows it reads the study."""

from collections.abc import Callable
from dataclasses import dataclass

from tts.tuning.report.fleet import reason_of
from tts.tuning.report.records import FINISHED, Limit, StudyRecord, TrialRecord, record
from tts.tuning.study import Study

RECENT = 10
"""Finished trials whose times the time left is estimated from."""


@dataclass(frozen=True)
class Snapshot:
    """What the live view shows."""

    study: StudyRecord
    """Without importances."""
    workers: int | None = None
    """Of this launcher that are alive; None where it is not known."""
    waiting: tuple[str, ...] = ()
    """Why some of them wait, a line for each reason."""

    @property
    def running(self) -> list[TrialRecord]:
        """Trials in a worker's hands."""
        return [trial for trial in self.study.own if trial.state == "running"]

    @property
    def limits(self) -> dict[str, Limit]:
        """By the knob's name."""
        return {limit.knob: limit for limit in self.study.budgets}

    @property
    def seconds_left(self) -> float | None:
        """Until the study's trials are finished, if they go on as the last ones did and no budget of time ends them; None before one is."""
        if self.study.spent:
            return 0.0
        times = [trial.seconds for trial in self.study.own if trial.state in ("complete", "pruned") and trial.seconds][-RECENT:]
        if not times:
            return None
        at_once = max(1, len(self.running))
        of_trials = sum(times) / len(times) * self.limits["trials"].left / at_once
        hours = [
            self.limits[knob].left * 3600 / share
            for knob, share in (("hours", 1), ("gpu_hours", at_once * self.study.devices))
            if knob in self.limits
        ]
        return min(of_trials, *hours) if hours else of_trials


def snapshot(study: Study, *, workers: int | None = None, waiting: tuple[str, ...] = (), stop: Callable[[], object] = lambda: False) -> Snapshot:
    """Reads what Optuna's cache has not seen: trials that are not finished. `stop`: as `record`'s. Raises ServiceUnavailableError."""
    return Snapshot(record(study, importances=False, stop=stop), workers, waiting)


@dataclass(frozen=True)
class Event:
    """Something that happened between two looks."""

    text: str
    notable: bool
    """Worth a log line of its own: a new best, a failure, an interruption."""


def happened(before: Snapshot | None, now: Snapshot) -> list[Event]:
    """What a person would want to be told, in the order of the trials; of those nothing where there is no earlier look."""
    waits = {reason_of(line) for line in before.waiting} if before else set()
    waiting = [Event(line, notable=True) for line in now.waiting if reason_of(line) not in waits]
    if before is None:
        return waiting
    known = {trial.number: trial for trial in before.study.own}
    best = now.study.best.number if now.study.best and now.study.best != before.study.best and not now.study.several else None
    events = [event for trial in now.study.own if (event := _event(trial, known.get(trial.number), now.study, best=trial.number == best))]
    if now.workers is not None and before.workers is not None and now.workers < before.workers:
        events.append(Event(f"{before.workers - now.workers} of {before.workers} workers ended", notable=True))
    return events + waiting


def figures(study: StudyRecord, values: list[float]) -> str:
    """The objectives of a trial in words."""
    return "  ".join(f"{name} {value:.5g}" for name, value in zip(study.objectives, values, strict=True)) if study.several else f"{values[0]:.5g}"


def _event(trial: TrialRecord, earlier: TrialRecord | None, study: StudyRecord, *, best: bool) -> Event | None:
    if len(trial.interruptions) > (len(earlier.interruptions) if earlier else 0):
        return Event(f"trial {trial.number} was interrupted at step {trial.step}: {trial.interruptions[-1]}", notable=True)
    if earlier and earlier.state == trial.state:
        return None
    said = {
        "complete": lambda: f"trial {trial.number} complete: {figures(study, trial.values)}{', the best so far' if best else ''}",
        "pruned": lambda: f"trial {trial.number} pruned at step {trial.step}",
        "fail": lambda: f"trial {trial.number} failed: {trial.reason}",
        "running": lambda: f"trial {trial.number} goes on from step {trial.step}" if trial.interruptions else "",
    }
    text = said[trial.state]() if trial.state in said else ""
    return Event(text, notable=best or trial.state == "fail") if text else None


def summary(now: Snapshot) -> str:
    """One line."""
    study = now.study
    states = ", ".join(f"{study.counts[state]} {state}" for state in (*FINISHED, "running", "waiting") if study.counts.get(state))
    words = [f"{study.finished} of {study.budget} trials finished" + (f" ({states})" if states else "")]
    if study.best:
        words.append(f"best {figures(study, study.best.values)} (trial {study.best.number})")
    if now.workers is not None:
        words.append(f"{now.workers} worker{'' if now.workers == 1 else 's'}")
    words += now.waiting
    if now.seconds_left:
        words.append(f"about {duration(now.seconds_left)} left")
    return "; ".join(words)


def duration(seconds: float) -> str:
    """As people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
