"""One attempt at a trial: train it in a child process, report and track each validation, tell the study how it ended.

Whatever an attempt writes to the study is refused once its lease is lost. Then its process is killed, nothing is reported, and its tracked run
is left to the attempt that has the trial now.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from optuna.trial import TrialState

from tts.config import Config
from tts.config.load import override
from tts.errors import CannotWriteError, PreemptedError, ServiceUnavailableError, TtsError, UsageError
from tts.tracking import Run, Tracker
from tts.training.preemption import StopFlag
from tts.tuning.budget import Budget
from tts.tuning.database.attributes import LOG, METRICS, PRUNED_AT, REASON, SECONDS, SPANS, STALE_SECONDS, TRACKING_RUN
from tts.tuning.database.failure import LeaseLostError
from tts.tuning.database.retry import persistently
from tts.tuning.search.objective import Objective, UnusableMetricError
from tts.tuning.search.pruning import judge
from tts.tuning.search.space import apply
from tts.tuning.study import BASELINE, Study
from tts.tuning.trials.trial import GRACE_SECONDS, TrialFailedError, TrialKilledError, TrialProcesses, Work, run_trial, tail
from tts.tuning.work.halt import RESERVE_SECONDS, Halt, trial_seconds
from tts.tuning.work.heartbeat import Heartbeat
from tts.tuning.work.queue import Held, hand_back
from tts.tuning.work.runs import SharedRun

logger = logging.getLogger(__name__)


def trial_config(config: Config, params: Mapping[str, Any]) -> Config:
    """What a trial trains with: the study's configuration, its values for the searched knobs, and the trial's budget. Raises UsageError.

    A trial has the first `tuning.trial_restarts` remedies of the ladder, by default none: a trial that goes wrong has failed, where a remedy would
    let it go on with other values than those that it is told of.

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
        "recovery.remedies": [remedy.model_dump() for remedy in config.recovery.remedies[: tuning.trial_restarts]],
    }
    return override(apply(config, params), budget, "trial")


class Surroundings(NamedTuple):
    """What a worker's attempts have in common."""

    features: Path
    tracker: Tracker
    parent: str | None
    """The study's tracked run."""
    processes: TrialProcesses
    gone: Callable[[], str]
    """Why there is nobody to work for any more, in words; empty while there is. Asked after each heartbeat, in its thread."""


class Attempt:
    """A trial in this worker's hands."""

    def __init__(self, study: Study, held: Held, heartbeat: Heartbeat, run: SharedRun, surroundings: Surroundings) -> None:
        self.study, self.held, self.heartbeat, self.run = study, held, heartbeat, run
        self.features, self.tracker, self.parent, self.processes, self.gone = surroundings
        self.trial, self.plan, self.objective = held.trial, held.plan, Objective(held.plan.config.tuning.objective)
        self.begun = time.time(), time.monotonic()
        self.reported = set(held.trial.intermediate_values)
        """Steps that an attempt before this one reported."""
        self.metrics: dict[str, float] = {}
        self.values: tuple[float, ...] | None = None
        self.step = 0

        self.validated: Callable[[], None] = lambda: None
        """To be called while the trial waits for its verdict, and goes on."""

    def make(self, stop: StopFlag) -> bool:
        """Whether the trial is finished; if not it was handed back, or lost. Raises what is wrong with the surroundings, after handing it back."""
        shown = "  ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in self.trial.params.items())
        logger.info("trial %d: %s", self.trial.number, shown)
        halt = Halt(stop, self.heartbeat, grace_seconds=self._grace)
        try:
            with self.heartbeat.of(self.held.id, self.held.lease, lambda: self._beaten(halt)):
                return self._attempt(halt)
        except LeaseLostError as error:
            logger.warning("trial %d: %s; nothing of this attempt is reported", self.trial.number, error)
            return False
        finally:
            self.run.discard()

    @property
    def _grace(self) -> float:
        """Seconds that this worker gets to end in."""
        return float(self.plan.config.cluster.grace_seconds if self._in_pod else GRACE_SECONDS + RESERVE_SECONDS)

    @property
    def _in_pod(self) -> bool:
        return self.plan.config.tuning.launcher == "kubernetes"

    def _attempt(self, halt: Halt) -> bool:
        try:
            with self.tracker.run(f"trial-{self.trial.number}", parent=self.parent, run_id=self._tracked()) as tracked:
                state = self._train_and_tag(tracked, halt)
        except TrialKilledError as error:
            return self._hand_back(str(error), halt, died=True)
        except (TrialFailedError, UnusableMetricError, UsageError) as error:
            self._finish(TrialState.FAIL, halt, str(error))
            return True
        except PreemptedError as error:
            self._hand_back(halt.reason or str(error), halt)
            if halt.broken:
                raise halt.broken from error
        except LeaseLostError:
            raise
        except TtsError as error:
            # Whoever takes the trial next may meet the same damaged file; a full disk or a lost service is not the trial's fault.
            self._hand_back(str(error), halt, died=not isinstance(error, CannotWriteError | ServiceUnavailableError))
            raise
        else:
            self._finish(state, halt)
            return True
        return False

    def _tracked(self) -> str | None:
        """The run of an earlier attempt. One below another parent may be in another store."""
        known: dict[str, str] = self.trial.user_attrs.get(TRACKING_RUN, {})
        return known.get("run") if known.get("parent") == self.parent else None

    def _train_and_tag(self, tracked: Run, halt: Halt) -> TrialState:
        try:
            state = self._train(tracked, halt)
        except LeaseLostError:
            raise
        except TtsError as error:
            self._check_lease(halt)
            if isinstance(error, TrialFailedError | UnusableMetricError | UsageError) and not isinstance(error, TrialKilledError):
                tracked.tags({"trial": "fail", "reason": str(error)})
            raise
        self._check_lease(halt)
        tracked.tags({"trial": state.name.lower()})
        return state

    def _check_lease(self, halt: Halt) -> None:
        """The tracked run ends with this attempt only if the trial is still ours. Raises LeaseLostError."""
        try:
            persistently(
                lambda: self.study.storage.note(self.held.id, self.held.lease, {}),
                url=self.study.url, seconds=halt.patience, stop=lambda: halt.asked,
            )  # fmt: skip
        except ServiceUnavailableError as error:
            logger.warning("trial %d: %s", self.trial.number, error)  # what follows finds out

    def _train(self, tracked: Run, halt: Halt) -> TrialState:
        run = {TRACKING_RUN: {"parent": self.parent, "run": tracked.id}}
        self._note({**run, **self.run.attributes()}, halt)
        tracked.params(self.trial.params)
        config = trial_config(self.plan.config, self.trial.params)
        work = Work(self.features, self.run.folder, self.run.lock, config, self.plan.config.tuning.workers)
        with self.run.kept(lambda attributes: self._note(attributes, halt), lambda: bool(halt), halt.left) as self.validated:
            seconds = trial_seconds(self._grace) if self._in_pod else GRACE_SECONDS
            ended = run_trial(
                work, lambda step, metrics: self._judge(tracked, halt, step, metrics), halt, processes=self.processes, grace_seconds=seconds
            )
        if ended == "pruned":
            return TrialState.PRUNED
        if self.step < config.training.steps:
            raise TrialFailedError(f"its last validation was at step {self.step} of {config.training.steps}")
        return TrialState.COMPLETE

    def _note(self, attributes: Mapping[str, Any], halt: Halt) -> None:
        note = self.study.storage.note
        persistently(lambda: note(self.held.id, self.held.lease, attributes), url=self.study.url, stop=lambda: halt.asked)

    def _judge(self, tracked: Run, halt: Halt, step: int, metrics: Mapping[str, float]) -> bool:
        """Reports a validation; whether the trial is to be pruned."""
        ends = self._verdict(tracked, halt, step, metrics)
        if not ends and step < self.plan.config.tuning.steps:
            self.validated()
        return ends

    def _verdict(self, tracked: Run, halt: Halt, step: int, metrics: Mapping[str, float]) -> bool:
        self.step, self.metrics = step, dict(metrics)
        if step not in self.reported:
            tracked.metrics(metrics, step)  # first: what makes the objective unusable is what one wants to see, and non-finite values are counted
        self.values = self.objective.values(metrics, step)
        if step in self.reported:
            # Whoever reported it may have been killed before it acted on the verdict; a pruner asked again might say otherwise by now.
            return self.trial.system_attrs.get(PRUNED_AT) == step and self.trial.number != BASELINE
        names = [f"objective.{name}" for name in self.objective.names] if self.objective.several else ["objective"]
        tracked.metrics(dict(zip(names, self.values, strict=True)), step)
        try:
            # All values are judged against the configuration's own, so that trial runs to its end.
            return persistently(lambda: self._report(step), url=self.study.url, stop=lambda: halt) and self.trial.number != BASELINE
        except ServiceUnavailableError as error:
            # The trial goes to its checkpoint; the next attempt reports this step.
            halt.broken = None if halt else error
            return False

    def _report(self, step: int) -> bool:
        """With several objectives the first one's value is kept to look at, and nothing is pruned."""
        value = self.values[0] if self.values else 0.0
        if self.objective.several or step == self.plan.config.tuning.steps:
            self.study.storage.report(self.held.id, self.held.lease, step, value)
            self.trial.intermediate_values = {**self.trial.intermediate_values, step: value}
            return False
        return judge(self.study.trials, self.study.storage, self.trial, self.held.lease, step, value)

    def _finish(self, state: TrialState, halt: Halt, reason: str = "") -> None:
        failed = {REASON: reason, LOG: tail(self.run.folder / "trial.log")} if reason else {}
        last = self.trial.intermediate_values.get(self.step)
        values = self.values if state == TrialState.COMPLETE else (last,) if state == TrialState.PRUNED and last is not None else None
        noted = {**self._measured(), **failed}
        persistently(
            lambda: self.study.storage.finish(self.held.id, self.held.lease, state, values, noted), url=self.study.url, stop=lambda: halt.asked
        )
        at = f" at step {self.step}" if state != TrialState.COMPLETE else ""
        figure = f": {reason}" if reason else f" with {', '.join(f'{value:.5g}' for value in self.values or ())}"
        logger.info("trial %d %s%s%s", self.trial.number, state.name.lower(), at, figure)

    def _hand_back(self, reason: str, halt: Halt, *, died: bool = False) -> bool:
        """Whether that finished the trial, which died too often.

        A database that is gone is not waited for: the trial is found stale, and whoever takes it goes on from its checkpoint.
        """
        log = {LOG: tail(self.run.folder / "trial.log")} if died else {}
        try:
            return hand_back(self.study, self.held, reason, {**self._measured(), **log}, died=died, seconds=halt.patience)
        except (ServiceUnavailableError, CannotWriteError) as error:
            logger.warning(
                "trial %d cannot be handed back (%s); another worker takes it up after %g s without a sign of life (%s)",
                self.trial.number, error, self.trial.user_attrs[STALE_SECONDS], reason,
            )  # fmt: skip
            return False

    def _measured(self) -> dict[str, Any]:
        """What the trial measured last, and its time over all attempts."""
        measured = {METRICS: {"step": self.step, **self.metrics}} if self.metrics else {}
        return {**measured, **self._times(), **self.run.attributes()}

    def _times(self) -> dict[str, Any]:
        began, clock = self.begun
        lasted = time.monotonic() - clock
        earlier: list[list[float]] = self.trial.user_attrs.get(SPANS, [])
        return {
            SECONDS: round(self.trial.user_attrs.get(SECONDS, 0.0) + lasted, 3),
            SPANS: [*earlier, [round(began, 3), round(began + lasted, 3)]],
        }

    def _beaten(self, halt: Halt) -> None:
        """After each heartbeat, in its thread: notes the time in training, and whether the study has any left."""
        self.study.storage.note(self.held.id, self.held.lease, self._times())
        tuning = self.study.read_plan().config.tuning
        halt.reason = self.gone()
        if not halt.reason and (tuning.gpu_hours or tuning.hours):
            halt.reason = Budget.of(tuning, self.study.trials.get_trials(deepcopy=False)).out_of_time
