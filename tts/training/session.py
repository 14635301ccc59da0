"""A run under way: its updates, and where they are written down. Where several ranks train together, rank 0 has the only one."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tts.config import Config
from tts.config.load import to_json
from tts.data.batch import Batch
from tts.data.store import FeatureStore
from tts.errors import PreemptedError, TrainingDivergedError
from tts.progress import Task
from tts.storage import write_text
from tts.training.anomaly import Anomaly, write_anomaly
from tts.training.checkpoint import Checkpoints, check_resumable
from tts.training.corpus_record import write_corpus_record
from tts.training.evidence import write_evidence
from tts.training.held_out import AbandonedError, HeldOut
from tts.training.metrics_log import MetricsLog
from tts.training.modules_log import ModulesLog
from tts.training.preemption import StopFlag, TooLittleMemoryError
from tts.training.ranks import Ranks
from tts.training.recovery.abandoned import drop_after, set_aside
from tts.training.recovery.ladder import describe
from tts.training.recovery.trouble import Trouble
from tts.training.restart import diverged, go_back
from tts.training.run_folder import RunState, State, Totals, clear_after, write_state
from tts.training.schedule import reduction_factor
from tts.training.step import StepResult
from tts.training.updates import Tally, Updates
from tts.training.validation import Measure, ValidationRecord, snapshot_path

logger = logging.getLogger(__name__)


class Session:
    """One run of one configuration on one feature store. The folder must be held (run_folder.py)."""

    def __init__(self, store: FeatureStore, config: Config, run: Path, measure: Measure | None, ranks: Ranks) -> None:
        """Opens a fresh run, or goes on from the newest checkpoint. Raises UsageError, DataError, CannotWriteError."""
        self._updates = Updates(store, config, ranks)
        self.run, self.config, self._store, self._measure, self._ranks = run, config, store, measure, ranks
        self.checkpoints, self._log = Checkpoints(run), MetricsLog(run / "metrics.jsonl")
        self._modules = ModulesLog(run / "modules.jsonl")
        self._held_out = HeldOut(store, config)
        self._resume()
        self._settle()
        self._warn()
        self._begun = time.monotonic() - self.tally.seconds
        self._frames, self._busy = 0, 0.0
        write_text(run / "config.json", to_json(config))
        write_corpus_record(run / "corpus.json", store)
        self.note("running")
        self.begin()

    def _resume(self) -> None:
        content = self.checkpoints.newest(self._updates.device)
        if content is None:
            return
        check_resumable(content, self.config, self._store.fingerprint, self.run)
        self._updates.load(content)
        logger.info("%s: going on from step %d", self.run, self.tally.step)

    def _settle(self) -> None:
        """Brings the folder to where the updates stand: nothing in it is of a later step, or of a restart that they have not had."""
        step, restarts = self.tally.step, self._updates.restarts
        drop_after(self.run, len(restarts))
        if restarts and restarts[-1].back_to_step == step:
            set_aside(self.run, restarts[-1])
        clear_after(self.run, step)
        self._modules.cut(step)
        known = self._updates.watch.validations.step
        # A run that was stopped before its validation, made up for it and was killed then has it in the log alone: neither the checkpoint's
        # record nor the index, which tells the best one, knows of it, so it is made once more.
        validations = [line for line in self._log.cut(step, validated=known == step) if line["kind"] == "validation"]
        for line in validations:  # of a version that did not watch
            if line["step"] > known:
                self._watch(line["step"], line)
        self._validated_step = max((line["step"] for line in validations), default=0)
        self._saved_step = step

    @property
    def tally(self) -> Tally:
        """Counts of all attempts."""
        return self._updates.tally

    @property
    def trouble(self) -> Trouble | None:
        """What went wrong with the run, as its record tells."""
        return self._updates.watch.trouble(self.tally.step, self.config.recovery)

    @property
    def remedies_left(self) -> int:
        """Rungs of the ladder that were not yet taken."""
        return max(0, len(self.config.recovery.remedies) - len(self._updates.restarts))

    def diverged(self, trouble: Trouble) -> TrainingDivergedError:
        """What the run ends with where no remedy is left."""
        return diverged(trouble, self._updates.restarts, self.run)

    def go_back(self, trouble: Trouble, task: Task) -> None:
        """Restarts where the run was healthy, by the next remedy. Raises CannotWriteError."""
        noticed = self.tally.step
        self.tally.seconds = self._seconds()
        restart = go_back(self._updates, self.checkpoints, trouble, self._about(), self._store, self.config)
        self._settle()
        self.note("running")
        logger.warning(
            "step %d: %s: %s; going back to step %d with %s (restart %d of at most %d)", noticed, trouble.trigger, trouble.sentence,
            restart.back_to_step, describe(restart), restart.number, len(self.config.recovery.remedies),
        )  # fmt: skip
        task.advance(restart.back_to_step - noticed)

    def begin(self) -> None:
        """Gives the other ranks where the updates stand. Raises LostRankError."""
        self._ranks.begin(self._updates.state(), self._updates.device)

    @property
    def finished(self) -> bool:
        """Whether all steps are made."""
        return self.tally.step >= self.config.training.steps

    def advance(self, task: Task) -> None:
        """Makes the next step. Raises CannotWriteError, LostRankError."""
        begun = time.monotonic()
        result, batch = self._updates.make()
        step = self.tally.step
        self._frames += int(batch.all_mel_lengths.sum())
        self._busy += time.monotonic() - begun
        shown: dict[str, float | str] = {}
        if step == 1 or step % self.config.training.log_interval == 0:
            figures = self._write_line(result)
            shown = {"loss": figures["loss"], "frames/s": f"{figures['frames_per_second']:,.0f}"}
        if result.anomaly:
            self._report(result.anomaly, result, batch)
        task.advance(1, **shown)

    @property
    def validation_due(self) -> bool:
        """Whether a validation belongs to this step, and is not yet done: at each interval and after the last step."""
        step = self.tally.step
        return (step % self.config.training.validation_interval == 0 or self.finished) and step != self._validated_step

    def validate(self, stop: StopFlag) -> ValidationRecord | None:
        """Validates where it is due, unless the run is to stop before it is done. Raises DeviceMemoryError."""
        if not self.validation_due:
            return None
        try:
            return self._validate(stop)
        except AbandonedError:
            return None

    def _validate(self, stop: StopFlag) -> ValidationRecord:
        step, model, device = self.tally.step, self._updates.model, self._updates.device
        metrics, saturation = self._held_out.validate(model, self._updates.config, step, device, self.tally, stop)
        if self._measure:
            metrics |= self._measure(model)
        snapshot = snapshot_path(self.run, step)
        self._held_out.picture(snapshot, model, device, self.tally)
        self._log.append("validation", step, {**metrics, **saturation, "seconds": self._seconds()})
        self._validated_step = step
        self._watch(step, metrics)
        return ValidationRecord(step, metrics, snapshot)

    def save(self, record: ValidationRecord | None, *, always: bool = False) -> None:
        """Writes a checkpoint where it is due: at each interval, after the last step and for the best validation yet. Raises CannotWriteError."""
        step = self.tally.step
        regular = step % self.config.training.checkpoint_interval == 0 or (record is not None and self._is_best(record))
        due = always or self.finished or regular
        # A checkpoint of a stopped run is written again when its validation was made up for.
        if not due or (step == self._saved_step and record is None):
            return
        self.tally.seconds = self._seconds()
        rules, doubts = self.config.recovery, self._updates.watch.doubts(step, self.config.recovery) if self.remedies_left else []
        self.checkpoints.save(
            step,
            {**self._updates.state(), **self._about()},
            mel_loss=record.metrics["mel_loss"] if record else None,
            keep=self.config.training.keep_checkpoints,
            regular=regular,
            doubts=doubts,
            probation_steps=rules.probation_steps,
        )
        self._saved_step = step
        self.note("running")

    def _about(self) -> dict[str, Any]:
        """What a checkpoint says of the run beside the state of its updates."""
        return {
            "config": self.config.model_dump(mode="json"),
            "fingerprint": self._store.fingerprint,
            "language": self._store.config.text.language,
            "symbols": list(self._store.symbol_table.symbols),
            "speakers": list(self._store.speakers),
        }

    def note(self, state: State) -> None:
        """Writes run.json. Raises CannotWriteError."""
        tally, seconds = self.tally, round(self._seconds(), 3)
        totals = Totals(
            skipped_updates=tally.skipped_updates,
            overflows=tally.overflows,
            seconds=seconds,
            restarts=len(self._updates.restarts),
            frame_budget_halvings=tally.frame_budget_halvings,
        )
        language = self._store.config.text.language
        known = {"fingerprint": self._store.fingerprint, "language": language, "ranks": self._ranks.count}
        write_state(self.run, RunState(state=state, step=self.tally.step, totals=totals, **known))

    @contextmanager
    def noting_the_end(self) -> Iterator[None]:
        """Writes into run.json how the block ended."""
        try:
            yield
        except (PreemptedError, TooLittleMemoryError):
            self.note("preempted")
            raise
        except KeyboardInterrupt:
            self.note("interrupted")
            raise
        except GeneratorExit:
            self.note("finished" if self.finished else "stopped")
            raise
        except TrainingDivergedError:
            self.note("diverged")
            raise
        self.note("finished")

    def _warn(self) -> None:
        """Says what can be trained with but is hardly meant."""
        if len(self._store.speakers) > 1 and not (self.config.model.speaker_embedding or self.config.model.style_tokens):
            logger.warning(
                "the features hold %d speakers and model.speaker_embedding is 0: one voice is trained on all of them", len(self._store.speakers)
            )
        last, aim = reduction_factor(self.config, self.config.training.steps), self.config.model.reduction_factor
        if last != aim:
            needed = (self.config.model.initial_reduction_factor - aim) * self.config.training.reduction_interval + 1
            logger.warning(
                "%s: %d steps end at %d frames a decoder step; to come down to %d takes %d, or a smaller training.reduction_interval",
                self.run, self.config.training.steps, last, aim, needed,
            )  # fmt: skip

    def _watch(self, step: int, metrics: Mapping[str, float]) -> None:
        updates = self._updates
        validations = updates.watch.validations.after(step, metrics, updates.config.guided_attention, self.config.recovery)
        updates.watch = updates.watch.but(validations=validations)

    def _is_best(self, record: ValidationRecord) -> bool:
        best = self.checkpoints.index().best_entry
        return best is None or best.mel_loss is None or record.metrics["mel_loss"] < best.mel_loss

    def _write_line(self, result: StepResult) -> dict[str, float]:
        figures = {
            **result.figures(),
            "skipped_updates": self.tally.skipped_updates,
            "frames_per_second": round(self._frames / self._busy, 1),
            **self._updates.seconds(),
            "seconds": self._seconds(),
        }
        self._log.append("train", self.tally.step, figures)
        self._modules.append(self.tally.step, self._updates.by_part(result))
        self._frames, self._busy = 0, 0.0
        return figures

    def _report(self, anomaly: Anomaly, result: StepResult, batch: Batch) -> None:
        step, in_a_row = self.tally.step, self._updates.watch.updates.skipped.count
        folder = self.run / "anomalies"
        texts = dict(zip(self._store.ids, self._store.texts, strict=True)) if result.evidence else {}
        evidence = write_evidence(folder, result.evidence, texts) if result.evidence else None
        write_anomaly(folder, step, anomaly, batch, {**result.figures(), "skipped_in_a_row": in_a_row}, evidence)
        logger.warning("step %d: update skipped: %s", step, anomaly)

    def _seconds(self) -> float:
        return round(time.monotonic() - self._begun, 3)
