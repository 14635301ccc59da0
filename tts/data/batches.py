"""Batches of utterances of similar length under a frame budget, addressed by the number of the step.

Shape letters: B batch, N symbols, T frames (padded to a multiple of the reduction factor), M mels.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from tts.config import DataConfig
from tts.data.batch import Batch, Whole
from tts.data.store import FeatureStore
from tts.errors import UsageError

Indices = Sequence[int] | NDArray[np.int64]
LENGTH_JITTER = 0.05
"""Lengths are blurred by up to this share before sorting, so that neighbours change from epoch to epoch."""


def collate(store: FeatureStore, indices: Indices, reduction_factor: int) -> Batch:
    """The utterances, if any, side by side, in the order given; mel padded with 0 to a multiple of the reduction factor."""
    symbols = [store.symbols(int(index)) for index in indices]
    mels = [store.mel(int(index)) for index in indices]
    frames = max((len(mel) for mel in mels), default=0)
    symbols_BN = np.zeros((len(symbols), max((len(row) for row in symbols), default=0)), dtype=np.int64)
    mel_BTM = np.zeros((len(mels), _padded(frames, reduction_factor), store.config.audio.mels), dtype=np.float32)
    for row, (spelled, mel) in enumerate(zip(symbols, mels, strict=True)):
        symbols_BN[row, : len(spelled)] = spelled
        mel_BTM[row, : len(mel)] = mel
    return Batch(
        ids=tuple(store.ids[int(index)] for index in indices),
        symbols_BN=torch.from_numpy(symbols_BN),
        symbol_lengths_B=torch.tensor([len(row) for row in symbols], dtype=torch.int64),
        mel_BTM=torch.from_numpy(mel_BTM),
        mel_lengths_B=torch.tensor([len(mel) for mel in mels], dtype=torch.int64),
        speakers_B=torch.tensor([store.speaker_numbers[int(index)] for index in indices], dtype=torch.int64),
    )


class TrainingBatches:
    """An endless sequence of batches that depends on the step alone: resuming needs no state.

    Every epoch holds each utterance exactly once, in batches that are drawn anew by (seed, epoch).
    Raises UsageError if an utterance alone exceeds the frame budget.
    """

    def __init__(self, store: FeatureStore, indices: Indices, config: DataConfig, reduction_factor: int, seed: int) -> None:
        self._store, self._config, self._reduction_factor, self._seed = store, config, reduction_factor, seed
        self._indices = np.asarray(indices, dtype=np.int64)
        check_budget(store, self._indices, config, reduction_factor)
        # First step of each epoch planned so far; the plan itself is kept for the latest epoch asked for.
        self._first_steps = [0]
        self._plan: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        return collate(self._store, self.utterances(step), self._reduction_factor)

    def part(self, step: int, rank: int, ranks: int) -> Batch:
        """What one of `ranks` processes has of the batch of a step; nothing where there are more processes than utterances."""
        if ranks == 1:
            return self.batch(step)
        indices = self.utterances(step)
        frames = self._store.frames[indices]
        part = collate(self._store, indices[shares(frames, ranks)[rank]], self._reduction_factor)
        return replace(part, part_of=Whole(tuple(self._store.ids[int(index)] for index in indices), torch.from_numpy(frames)))

    def utterances(self, step: int) -> NDArray[np.int64]:
        """Numbers of the utterances in the batch of a step."""
        epoch = self.epoch(step)
        return self._batches(epoch)[step - self._first_steps[epoch]]

    def epoch(self, step: int) -> int:
        """The epoch that a step falls into, counted from 0."""
        while self._first_steps[-1] <= step:
            self._first_steps.append(self._first_steps[-1] + len(self._batches(len(self._first_steps) - 1)))
        return int(np.searchsorted(self._first_steps, step, side="right")) - 1

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        if self._plan[0] != epoch:
            random = np.random.default_rng((self._seed, epoch))
            blurred = self._store.frames[self._indices] * random.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, len(self._indices))
            batches = _under_budget(self._store.frames, self._indices[np.argsort(blurred)], self._config, self._reduction_factor)
            self._plan = (epoch, [batches[place] for place in random.permutation(len(batches))])
        return self._plan[1]


def shares(frames: NDArray[np.int64], ranks: int) -> list[NDArray[np.int64]]:
    """Places in a batch, shared out so that each rank has about as many frames: the longest first, each to who has least (Graham 1969).

    The first rank always has something. Within a share the batch's order stays.
    """
    loads = [0] * ranks
    parts: list[list[int]] = [[] for _ in range(ranks)]
    for place in np.argsort(-frames, kind="stable"):
        rank = loads.index(min(loads))
        loads[rank] += int(frames[place])
        parts[rank].append(int(place))
    return [np.array(sorted(part), dtype=np.int64) for part in parts]


def evaluation_batches(store: FeatureStore, indices: Indices, config: DataConfig, reduction_factor: int) -> list[Batch]:
    """Each utterance once, shortest first, whatever the order given. Raises UsageError as TrainingBatches does."""
    ordered = np.asarray(indices, dtype=np.int64)
    check_budget(store, ordered, config, reduction_factor)
    ordered = ordered[np.lexsort((ordered, store.frames[ordered]))]
    return [collate(store, batch, reduction_factor) for batch in _under_budget(store.frames, ordered, config, reduction_factor)]


def check_budget(store: FeatureStore, indices: NDArray[np.int64], config: DataConfig, reduction_factor: int) -> None:
    """Raises UsageError naming the longest utterance if it alone exceeds the frame budget, or if there is no utterance at all."""
    if not len(indices):
        raise UsageError(f"feature store {store.folder} has no utterances to make batches of")
    utterance, frames = longest_of(store, indices, reduction_factor)
    if frames > config.frame_budget:
        raise UsageError(
            f"utterance {store.ids[utterance]!r} has {frames} frames, more than data.frame_budget ({config.frame_budget}); "
            f"raise data.frame_budget or lower quality.max_seconds"
        )


def longest_of(store: FeatureStore, indices: Indices, reduction_factor: int) -> tuple[int, int]:
    """Number of the longest of some utterances, and its frames, padded."""
    numbers = np.asarray(indices, dtype=np.int64)
    utterance = int(numbers[np.argmax(store.frames[numbers])])
    return utterance, _padded(int(store.frames[utterance]), reduction_factor)


def _under_budget(frames: NDArray[np.int64], ordered: NDArray[np.int64], config: DataConfig, reduction_factor: int) -> list[NDArray[np.int64]]:
    """Cuts a sequence of utterances into batches; padding counts."""
    batches: list[NDArray[np.int64]] = []
    first, longest = 0, 0
    for place, index in enumerate(ordered):
        length = _padded(int(frames[index]), reduction_factor)
        size = place - first + 1
        if size > config.max_batch_size or max(longest, length) * size > config.frame_budget:
            batches.append(ordered[first:place])
            first, longest = place, 0
        longest = max(longest, length)
    return [*batches, ordered[first:]]


def _padded(frames: int, reduction_factor: int) -> int:
    return -(-frames // reduction_factor) * reduction_factor
