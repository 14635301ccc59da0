"""What a study may spend: finished trials, hours of training, hours by the clock, trials without a better one.

Everything is computed from the trials, so that it holds over all workers and for a study that is taken up again:

- `tuning.trials`: finished trials. One that was interrupted and taken up again is still one; imported ones do not count.
- `tuning.gpu_hours`: the time in training of all attempts at all trials, those under way included, times the devices of each. It counts where there
  is no GPU, too.
- `tuning.hours`: the time in which at least one trial was in training; a study that is stopped overnight does not lose the night.
- `tuning.plateau_trials`: finished trials, in the order in which they ended, since the last one that was better than all before it.

An attempt notes its time with each heartbeat, so the two hours may be exceeded by one heartbeat and the checkpoint at which trials stop.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from tts.config import TuningConfig
from tts.tuning.database.attributes import IMPORTED, SPANS
from tts.tuning.database.retry import persistently
from tts.tuning.study import Study

Span = tuple[float, float]


@dataclass(frozen=True)
class Budget:
    """What is spent and what is left of a study's budget."""

    trials: int
    """Finished trials asked for."""
    finished: int
    running: int
    waiting: int
    gpu_hours: float
    gpu_hours_used: float
    hours: float
    hours_used: float
    plateau_trials: int
    since_better: int
    """Finished trials since the last that was better than all before it."""

    @staticmethod
    def of(tuning: TuningConfig, trials: Sequence[FrozenTrial]) -> "Budget":
        """By the study's trials; imported ones are left out here."""
        own = [trial for trial in trials if IMPORTED not in trial.user_attrs]
        finished = [trial for trial in own if trial.state.is_finished()]
        spans = [span for trial in own for span in spans_of(trial)]
        return Budget(
            trials=tuning.trials,
            finished=len(finished),
            running=sum(trial.state == TrialState.RUNNING for trial in own),
            waiting=sum(trial.state == TrialState.WAITING for trial in own),
            gpu_hours=tuning.gpu_hours,
            gpu_hours_used=total(spans) * devices(tuning) / 3600,
            hours=tuning.hours,
            hours_used=covered(spans) / 3600,
            plateau_trials=tuning.plateau_trials,
            since_better=since_better(finished, tuning.plateau_share),
        )

    @staticmethod
    def state(study: Study, stop: Callable[[], object] = lambda: False) -> "Budget":
        """Of a study as it is now; `stop` ends the waiting for a database that is away. Raises ServiceUnavailableError."""
        return persistently(lambda: Budget.of(study.read_plan().config.tuning, study.trials.get_trials(deepcopy=False)), url=study.url, stop=stop)

    @property
    def gpu_hours_left(self) -> float:
        """Hours of training; infinite without a limit."""
        return max(0.0, self.gpu_hours - self.gpu_hours_used) if self.gpu_hours else math.inf

    @property
    def hours_left(self) -> float:
        """Hours by the clock; infinite without a limit."""
        return max(0.0, self.hours - self.hours_used) if self.hours else math.inf

    @property
    def out_of_time(self) -> str:
        """Which limit of time is reached, in words; empty where none is. Trials under way are handed back at a checkpoint."""
        if self.gpu_hours_left == 0:
            return f"its {self.gpu_hours:g} hours of training (tuning.gpu_hours) are used up"
        if self.hours_left == 0:
            return f"its {self.hours:g} hours (tuning.hours) are over"
        return ""

    @property
    def on_plateau(self) -> bool:
        """Whether too many trials in a row brought nothing better. Those under way run to their end: one of them may."""
        return 0 < self.plateau_trials <= self.since_better

    @property
    def spent(self) -> str:
        """Why the study is at its end, in words; empty as long as a trial may begin or one under way counts."""
        if self.finished >= self.trials:
            return f"all {self.trials} trials (tuning.trials) are finished"
        if self.out_of_time:
            return self.out_of_time
        if self.on_plateau and not self.running:
            return f"{self.since_better} trials in a row (tuning.plateau_trials) brought none that is better"
        return ""

    @property
    def may_begin(self) -> bool:
        """Whether another trial may be taken: as many as are asked for are finished or under way otherwise."""
        return self.finished + self.running < self.trials and not self.out_of_time and not self.on_plateau


def devices(tuning: TuningConfig) -> int:
    """That a trial trains on; a CPU counts as one."""
    return max(1, tuning.gpus_per_trial)


def spans_of(trial: FrozenTrial) -> list[Span]:
    """When a trial was in training."""
    return [(begin, end) for begin, end in trial.user_attrs.get(SPANS, [])]


def total(spans: Iterable[Span]) -> float:
    """Seconds of all spans together."""
    return sum(max(0.0, end - begin) for begin, end in spans)


def covered(spans: Iterable[Span]) -> float:
    """Seconds that lie in at least one span."""
    seconds, reached = 0.0, -math.inf
    for begin, end in sorted(spans):
        if end > reached:
            seconds += end - max(begin, reached)
            reached = end
    return seconds


def since_better(finished: Sequence[FrozenTrial], share: float) -> int:
    """Finished trials after the last one that was better than all before it.

    Better is lower by more than `share` of the best value; with several objectives: dominated or equalled by no trial before it. Values are
    those of the study, which minimises (a maximised metric enters with a minus).
    """
    front: list[list[float]] = []
    count = 0
    for trial in sorted(finished, key=lambda trial: (trial.datetime_complete or datetime.max, trial.number)):  # noqa: DTZ901  # as Optuna's
        values = list(trial.values) if trial.state == TrialState.COMPLETE and trial.values else None
        if values is not None and _is_better(values, front, share):
            front = [known for known in front if not _dominates(values, known)] + [values]
            count = 0
        else:
            count += 1
    return count


def _is_better(values: list[float], front: list[list[float]], share: float) -> bool:
    if len(values) == 1:
        return all(values[0] < known - share * abs(known) for (known,) in front)
    return not any(_dominates(known, values) for known in front)


def _dominates(one: list[float], other: list[float]) -> bool:
    """Whether `one` is at least as good in every objective."""
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True))
