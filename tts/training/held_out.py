"""The held-out utterances of a run: validated in batches of their own, which a device out of memory makes shorter, and left once a run is to stop."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import torch

from tts.config import Config
from tts.data.batch import Batch
from tts.data.batches import collate, evaluation_batches, longest_of
from tts.data.store import FeatureStore
from tts.model.tacotron2 import Tacotron2
from tts.training.device_memory import free, halve, halved
from tts.training.preemption import StopFlag
from tts.training.saturation import watching
from tts.training.updates import Tally
from tts.training.validation import SNAPSHOT_UTTERANCES, validate, write_snapshot

T = TypeVar("T")


class AbandonedError(Exception):
    """A validation is left before its end, for the run is to stop; whoever goes on makes up for it."""


def until(stop: StopFlag, parts: Iterable[T]) -> Iterator[T]:
    """The parts of some work, one after another. Raises AbandonedError before the next one once the run is to stop."""
    for part in parts:
        if stop:
            raise AbandonedError
        yield part


class HeldOut:
    """What is validated."""

    def __init__(self, store: FeatureStore, config: Config) -> None:
        """Raises UsageError where an utterance exceeds the frame budget."""
        self._store, self._config = store, config
        self._planned: tuple[int, list[Batch]] = (0, self._plan(0))

    def validate(
        self, model: Tacotron2, config: Config, step: int, device: torch.device, tally: Tally, stop: StopFlag
    ) -> tuple[dict[str, float], dict[str, float]]:
        """What `validate` measures under `config`, and saturation.py. Where the device is out of memory, the frame budget is half from then on.

        Raises AbandonedError once the run is to stop, DeviceMemoryError where no smaller budget helps.
        """
        while True:
            begun: list[Batch] = []
            try:
                with watching(model) as saturation:
                    metrics = validate(model, _noting(begun, until(stop, self._batches(tally.validation_halvings))), config, step, device)
                return metrics, saturation.figures()
            except torch.OutOfMemoryError:
                pass
            self._halve(tally, begun[-1])

    def picture(self, path: Path, model: Tacotron2, device: torch.device, tally: Tally) -> None:
        """Leaves a snapshot of the first utterances, or of as many of them as half the budget holds. Raises CannotWriteError, DeviceMemoryError."""
        while True:
            utterances = self._pictured(tally.validation_halvings)
            batch = collate(self._store, utterances, self._config.model.largest_reduction_factor)
            try:
                return write_snapshot(path, model, batch, [self._store.texts[i] for i in utterances], device)
            except torch.OutOfMemoryError:
                pass
            self._halve(tally, batch)

    def _halve(self, tally: Tally, batch: Batch) -> None:
        """Not to be called in a handler: the exception holds on to the network's layers."""
        free()
        tally.validation_halvings = halve(self._store, self._store.held_out, self._config, tally.validation_halvings, batch, "validation")

    def _pictured(self, halvings: int) -> list[int]:
        chosen = [int(index) for index in self._store.held_out[:SNAPSHOT_UTTERANCES]]
        if halvings:
            budget = halved(self._store, self._store.held_out, self._config, halvings).frame_budget
            _, frames = longest_of(self._store, chosen, self._config.model.largest_reduction_factor)
            chosen = chosen[: max(1, budget // frames)]
        return chosen

    def _batches(self, halvings: int) -> list[Batch]:
        if self._planned[0] != halvings:
            self._planned = halvings, self._plan(halvings)
        return self._planned[1]

    def _plan(self, halvings: int) -> list[Batch]:
        data = halved(self._store, self._store.held_out, self._config, halvings)
        return evaluation_batches(self._store, self._store.held_out, data, self._config.model.largest_reduction_factor)


def _noting(begun: list[Batch], batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        begun.append(batch)
        yield batch
