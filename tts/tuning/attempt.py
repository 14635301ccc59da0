"""One attempt at a trial: train it in a child process, report and track each validation, tell the study how it ended."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from tts.config import Config
from tts.config.load import override
from tts.errors import PreemptedError, TtsError, UsageError
from tts.tracking import Run, Tracker
from tts.training.preemption import StopFlag
from tts.tuning.objective import UnusableMetricError
from tts.tuning.queue import LOG, METRICS, REASON, SECONDS, TRACKING_RUN, hand_back
from tts.tuning.space import apply
from tts.tuning.storage import reaching
from tts.tuning.study import BASELINE, Study
from tts.tuning.trial import TrialFailedError, Work, run_trial, tail

logger = logging.getLogger(__name__)


def trial_config(config: Config, params: Mapping[str, Any]) -> Config:
    """What a trial trains with: the study's configuration, its values for the searched knobs, and the trial's budget. Raises UsageError.

    A trial checkpoints at least four times, never between validations: a lost worker costs a quarter of it at most. Seeds are those of the
    study's configuration in every trial, so that trials differ by their values alone.
    """
    tuning = config.tuning
    quarter = max(1, tuning.steps // 4 // tuning.validation_interval) * tuning.validation_interval
    budget = {
        "training.steps": tuning.steps,
        "training.validation_interval": tuning.validation_interval,
        "training.checkpoint_interval": quarter,
        "training.keep_checkpoints": 1,
    }
    return override(apply(config, params), budget, "trial")


class Attempt:
    """A trial in this worker's hands."""

    def __init__(self, study: Study, trial: optuna.Trial, *, features: Path, tracker: Tracker, parent: str | None) -> None:
        self.study, self.trial, self.plan, self.objective = study, trial, study.plan, study.objective
        self.features, self.tracker, self.parent = features, tracker, parent
        self.begun = time.monotonic()
        before = study.trials.trials[trial.number]
        self.reported = set(before.intermediate_values)
        """Steps that an attempt before this one reported."""
        self.attributes: dict[str, Any] = dict(before.user_attrs)
        self.metrics: dict[str, float] = {}
        self.value: float | None = None
        self.step = 0

    @property
    def folder(self) -> Path:
        """The trial's run folder, the same in every attempt."""
        return self.plan.folder / "trials" / str(self.trial.number)

    def make(self, stop: StopFlag) -> bool:
        """Whether the trial is finished; if not it was handed back. Raises what is wrong with the surroundings, after handing it back."""
        logger.info("trial %d: %s", self.trial.number, "  ".join(f"{name}={value:.4g}" for name, value in self.trial.params.items()))
        try:
            with self.tracker.run(f"trial-{self.trial.number}", parent=self.parent, run_id=self._tracked()) as tracked:
                state = self._train_and_tag(tracked, stop)
        except (TrialFailedError, UnusableMetricError, UsageError) as error:
            self._tell(TrialState.FAIL, str(error))
        except PreemptedError as error:
            self._note()
            hand_back(self.study, self.trial.number, str(error))
            return False
        except TtsError as error:
            self._note()
            hand_back(self.study, self.trial.number, str(error), died=True)
            raise
        else:
            self._tell(state)
        return True

    def _tracked(self) -> str | None:
        """The run of an earlier attempt. One below another parent may be in another store."""
        known: dict[str, str] = self.attributes.get(TRACKING_RUN, {})
        return known.get("run") if known.get("parent") == self.parent else None

    def _train_and_tag(self, tracked: Run, stop: StopFlag) -> TrialState:
        try:
            state = self._train(tracked, stop)
        except (TrialFailedError, UnusableMetricError, UsageError) as error:
            tracked.tags({"trial": "fail", "reason": str(error)})
            raise
        tracked.tags({"trial": state.name.lower()})
        return state

    def _train(self, tracked: Run, stop: StopFlag) -> TrialState:
        with reaching(self.study.url):
            self.trial.set_user_attr(TRACKING_RUN, {"parent": self.parent, "run": tracked.id})
        tracked.params(self.trial.params)
        lock = self.plan.folder / ".locks" / f"trial-{self.trial.number}"
        config = trial_config(self.plan.config, self.trial.params)
        work = Work(self.features, self.folder, lock, config, self.plan.config.tuning.workers)
        if run_trial(work, lambda step, metrics: self._judge(tracked, step, metrics), stop) == "pruned":
            return TrialState.PRUNED
        if self.step < config.training.steps:
            raise TrialFailedError(f"its last validation was at step {self.step} of {config.training.steps}")
        return TrialState.COMPLETE

    def _judge(self, tracked: Run, step: int, metrics: Mapping[str, float]) -> bool:
        """Reports a validation; whether the trial is to be pruned."""
        self.step, self.metrics = step, dict(metrics)
        (self.value,) = self.objective.values(metrics, step)
        if step in self.reported:
            return False
        tracked.metrics({**metrics, "objective": self.value}, step)
        with reaching(self.study.url):
            self.trial.report(self.value, step)
            if step == self.plan.config.tuning.steps:
                return False
            hopeless = self.trial.should_prune()  # asked of every trial: it is here that Hyperband notes what a trial had reached
            # All values are judged against the configuration's own, so that trial runs to its end.
            return bool(hopeless) and self.trial.number != BASELINE

    def _tell(self, state: TrialState, reason: str = "") -> None:
        self._note()
        value = self.value if state == TrialState.COMPLETE else None
        with reaching(self.study.url):
            if reason:
                self.trial.set_user_attr(REASON, reason)
                self.trial.set_user_attr(LOG, tail(self.folder / "trial.log"))
            self.study.trials.tell(self.trial, value, state)
        at = f" at step {self.step}" if state != TrialState.COMPLETE else ""
        figure = f": {reason}" if reason else f" with {self.value:.5g}"
        logger.info("trial %d %s%s%s", self.trial.number, state.name.lower(), at, figure)

    def _note(self) -> None:
        """Keeps what the trial measured last, and its time over all attempts."""
        seconds = self.attributes.get(SECONDS, 0.0) + time.monotonic() - self.begun
        with reaching(self.study.url):
            if self.metrics:
                self.trial.set_user_attr(METRICS, {"step": self.step, **self.metrics})
            self.trial.set_user_attr(SECONDS, round(seconds, 3))
