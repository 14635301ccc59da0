"""The updates of a run, one after another: the network, the batches, the counts. Every rank has them, and they are equal on all."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from tts.config import Config
from tts.data.batch import Batch
from tts.data.batches import TrainingBatches
from tts.data.store import FeatureStore
from tts.losses.guided_attention import guided_attention_weight
from tts.training.device_memory import halve, halved, of_several_ranks, undone
from tts.training.modules_log import by_part
from tts.training.precision import choose_device, choose_precision
from tts.training.ranks import Ranks
from tts.training.recovery.ladder import Restart, effective_config
from tts.training.recovery.watch import Watch
from tts.training.schedule import reduction_factor
from tts.training.step import StepResult, new_learner, train_step
from tts.training.weights import load_weights


@dataclass
class Tally:
    """Counts that belong to the checkpoint. All but the step are sums over the whole run, with what its restarts abandoned."""

    step: int = 0
    skipped_updates: int = 0
    overflows: int = 0
    seconds: float = 0.0
    frame_budget_halvings: int = 0
    """Times that a device out of memory has halved the batches from there on."""
    validation_halvings: int = 0
    """... and those of validations, of which only rank 0 knows."""


class Updates:
    """Makes one update after another."""

    def __init__(self, store: FeatureStore, config: Config, ranks: Ranks, restarts: Sequence[Restart] = ()) -> None:
        """Fresh weights, those of a run that has begun anew after so many restarts. Raises UsageError."""
        self.device = choose_device(config.training.device)
        self._asked, self._store, self.ranks = config, store, ranks
        self.restarts = tuple(restarts)
        """Why and how the run went back, so far."""
        self.config = effective_config(config, self.restarts)
        """What holds now: the run's configuration, as its restarts have changed it."""
        precision = choose_precision(self.config.training.precision, self.device)
        self.tally, self.watch = Tally(), Watch()
        self._batches = self._plan()
        sizes = {"symbols": len(store.symbol_table), "mels": config.audio.mels, "speakers": max(1, len(store.speakers))}
        self._learner = new_learner(self.config, **sizes, precision=precision, ranks=ranks)
        self.model = self._learner.model
        self.model.normalise_by(torch.from_numpy(store.mel_mean), torch.from_numpy(store.mel_deviation))
        if config.training.cuda_graphs and self.device.type == "cuda":
            self.model.capture_loops()
        if self.model.recogniser:
            self.model.recogniser.listen_for(store.symbol_table.spoken)

    @property
    def _keeps_evidence(self) -> bool:
        """Of the next step, should it be skipped: the run's first ones only, each is as large as the network."""
        return self.tally.skipped_updates < self.config.recovery.evidence_files

    def state(self) -> dict[str, Any]:
        """All that updates depend on and change, but for the configuration and the features."""
        learner = self._learner
        states = {"model": learner.model.state_dict(), "optimiser": learner.optimiser.state_dict(), "scaler": learner.scaler.state_dict()}
        restarts = [restart.model_dump() for restart in self.restarts]
        return {**states, "tally": asdict(self.tally), "watch": self.watch.model_dump(), "restarts": restarts}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` gave; checkpoints of older versions have no watch and no restarts.

        Raises DataError where it is of another architecture.
        """
        load_weights(self._learner.model, state["model"], f"the checkpoint of step {state['tally']['step']}")
        self.restarts = tuple(Restart.model_validate(values) for values in state.get("restarts", ()))
        self._adopt(effective_config(self._asked, self.restarts))
        self._learner.optimiser.load_state_dict(state["optimiser"])
        self._learner.scaler.load_state_dict(state["scaler"])
        known = {field.name for field in fields(Tally)}
        self.tally = Tally(**{name: value for name, value in state["tally"].items() if name in known})
        self.watch = Watch.model_validate(state.get("watch", {}))
        self._batches = self._plan()
        self.model.reduce_by(reduction_factor(self.config, self.tally.step))

    def by_part(self, result: StepResult) -> dict[str, dict[str, float]]:
        """Gradients and updates of each part of the network in the step just made (modules_log.py)."""
        updated = result.anomaly is None and not result.overflow
        return by_part(self.model, self._learner.optimiser, result.gradient_norms, updated=updated)

    def seconds(self) -> dict[str, float]:
        """Of each part of a step, in the mean since this was last asked (step_clock.py)."""
        return self._learner.clock.means()

    def make(self) -> tuple[StepResult, Batch]:
        """The next update, and this rank's part of its batch. Raises LostRankError, DeviceMemoryError."""
        step = self.tally.step + 1
        with self.ranks.step():
            result, batch = self._attempt(step)
            while result is None:
                self._halve(batch)
                result, batch = self._attempt(step)
        self._count(step, result)
        return result, batch

    def _count(self, step: int, result: StepResult) -> None:
        self.tally.step = step
        if result.anomaly:
            self.tally.skipped_updates += 1
        elif result.overflow:
            self.tally.overflows += 1
        updates = self.watch.updates.after(
            step,
            result.loss_value,
            reduction_factor=result.reduction_factor,
            guidance=guided_attention_weight(self.config.guided_attention, step),
            offence=str(result.anomaly) if result.anomaly else None,
            overflow=result.overflow,
            rules=self.config.recovery,
        )
        self.watch = self.watch.but(updates=updates)

    def _adopt(self, config: Config) -> None:
        """Goes on under another configuration, of those that restarts make of one."""
        if config == self.config:
            return
        self.config = config
        precision = choose_precision(config.training.precision, self.device)
        self._learner = replace(self._learner, precision=precision, scaler=precision.scaler())

    def _attempt(self, step: int) -> tuple[StepResult | None, Batch]:
        """None where the device is out of memory."""
        self._learner.clock.start()
        batch = self._batches.part(step - 1, self.ranks.rank, self.ranks.count)
        try:
            on_device = batch.to(self.device)
            self._learner.clock.end_of("data")
            return train_step(self._learner, on_device, self.config, step, keep_evidence=self._keeps_evidence), batch
        except torch.OutOfMemoryError as error:
            if self.ranks.together:
                raise of_several_ranks(batch, self.ranks, self.config) from error
            return None, batch

    def _halve(self, batch: Batch) -> None:
        self._learner = undone(self._learner)
        self.tally.frame_budget_halvings = halve(self._store, self._store.train, self.config, self.tally.frame_budget_halvings, batch, "training")
        self._batches = self._plan()

    def _plan(self) -> TrainingBatches:
        config, store = self.config, self._store
        data = halved(store, store.train, config, self.tally.frame_budget_halvings)
        return TrainingBatches(store, store.train, data, config.model.largest_reduction_factor, config.training.seed)
