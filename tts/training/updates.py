"""The updates of a run, one after another: the network, the batches, the counts. Every rank has them, and they are equal on all."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from tts.config import Config
from tts.data.batch import Batch
from tts.data.batches import TrainingBatches
from tts.data.store import FeatureStore
from tts.training.modules_log import by_part
from tts.training.precision import choose_device, choose_precision
from tts.training.ranks import Ranks
from tts.training.schedule import reduction_factor
from tts.training.step import StepResult, new_learner, train_step


@dataclass
class Tally:
    """Counts that belong to the checkpoint."""

    step: int = 0
    skipped_in_a_row: int = 0
    skipped_updates: int = 0
    overflows: int = 0
    seconds: float = 0.0


class Updates:
    """Makes one update after another."""

    def __init__(self, store: FeatureStore, config: Config, ranks: Ranks) -> None:
        """Fresh weights. Raises UsageError."""
        self.device = choose_device(config.training.device)
        precision = choose_precision(config.training.precision, self.device)
        self.config, self.ranks = config, ranks
        self._batches = TrainingBatches(store, store.train, config.data, config.model.largest_reduction_factor, config.training.seed)
        sizes = {"symbols": len(store.symbol_table), "mels": config.audio.mels, "speakers": max(1, len(store.speakers))}
        self._learner = new_learner(config, **sizes, precision=precision, ranks=ranks)
        self.model = self._learner.model
        self.model.normalise_by(torch.from_numpy(store.mel_mean), torch.from_numpy(store.mel_deviation))
        if self.model.recogniser:
            self.model.recogniser.listen_for(store.symbol_table.spoken)
        self.tally = Tally()

    @property
    def diverged(self) -> bool:
        """Whether too many updates in a row were not finite."""
        return self.tally.skipped_in_a_row >= self.config.recovery.max_skipped_updates

    def state(self) -> dict[str, Any]:
        """All that updates depend on and change, but for the configuration and the features."""
        learner = self._learner
        states = {"model": learner.model.state_dict(), "optimiser": learner.optimiser.state_dict(), "scaler": learner.scaler.state_dict()}
        return {**states, "tally": asdict(self.tally)}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self._learner.model.load_state_dict(state["model"])
        self._learner.optimiser.load_state_dict(state["optimiser"])
        self._learner.scaler.load_state_dict(state["scaler"])
        self.tally = Tally(**state["tally"])
        self.model.reduce_by(reduction_factor(self.config, self.tally.step))

    def by_part(self, result: StepResult) -> dict[str, dict[str, float]]:
        """Gradients and updates of each part of the network in the step just made (modules_log.py)."""
        updated = result.anomaly is None and not result.overflow
        return by_part(self.model, self._learner.optimiser, result.gradient_norms, updated=updated)

    def seconds(self) -> dict[str, float]:
        """Of each part of a step, in the mean since this was last asked (step_clock.py)."""
        return self._learner.clock.means()

    def make(self) -> tuple[StepResult, Batch]:
        """The next update, and this rank's part of its batch. Raises LostRankError."""
        with self.ranks.step():
            step = self.tally.step + 1
            self._learner.clock.start()
            batch = self._batches.part(step - 1, self.ranks.rank, self.ranks.count)
            on_device = batch.to(self.device)
            self._learner.clock.end_of("data")
            result = train_step(self._learner, on_device, self.config, step)
        self.tally.step = step
        if result.anomaly:
            self.tally.skipped_updates += 1
            self.tally.skipped_in_a_row += 1
        elif result.overflow:
            self.tally.overflows += 1
        else:
            self.tally.skipped_in_a_row = 0
        return result, batch
