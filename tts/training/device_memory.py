"""A device that is out of memory: batches become half as long, and the step is made again as if it had not been tried.

What is to be the same as in a step that was not tried: weights and Adam's state (nothing was updated), BatchNorm's statistics (step.py puts them
back), gradients (dropped), random numbers (a step seeds them by its number). How often the budget was halved is in the checkpoint, so a run that is
resumed makes the same batches.

Several ranks cannot do so: one alone is out of memory, while the others wait for it in the middle of a sum.
"""

import gc
import logging
from dataclasses import replace

import torch

from tts.config import Config, DataConfig
from tts.data.batch import Batch
from tts.data.batches import Indices, longest_of
from tts.data.store import FeatureStore
from tts.errors import UsageError
from tts.training.ranks import Ranks
from tts.training.step import Learner

logger = logging.getLogger(__name__)


class DeviceMemoryError(UsageError):
    """The device has too little memory for this network and these utterances."""


def halved(store: FeatureStore, indices: Indices, config: Config, halvings: int) -> DataConfig:
    """The configuration of batches after so many halvings of the frame budget, which stays above the longest of the utterances."""
    if not halvings:
        return config.data
    _, frames = longest_of(store, indices, config.model.largest_reduction_factor)
    return config.data.model_copy(update={"frame_budget": max(config.data.frame_budget >> halvings, min(frames, config.data.frame_budget))})


def halve(store: FeatureStore, indices: Indices, config: Config, halvings: int, batch: Batch, what: str) -> int:
    """How often the budget is halved from now on, after `what` ran out of memory at a batch. Raises DeviceMemoryError where that would not help."""
    allowed = config.recovery.frame_budget_halvings
    before, after = (halved(store, indices, config, number).frame_budget for number in (halvings, halvings + 1))
    tried = f"the device is out of memory in {what}, at {_described(batch)} under a budget of {before} frames"
    remedies = "a smaller network (model.*), training.precision bf16 where the device has it, or a device with more memory"
    if len(batch.ids) == 1:
        alone = f"utterance {batch.ids[0]!r} alone, of {batch.mel_BTM.shape[1]} frames, does not fit"
        raise DeviceMemoryError(f"{tried}: {alone}; lower quality.max_seconds, or take {remedies}")
    if halvings >= allowed:
        raise DeviceMemoryError(
            f"{tried}, which was halved {halvings} times already (recovery.frame_budget_halvings allows {allowed}); lower data.frame_budget, "
            f"or take {remedies}"
        )
    if after == before:
        utterance, frames = longest_of(store, indices, config.model.largest_reduction_factor)
        raise DeviceMemoryError(
            f"{tried}, which the longest utterance, {store.ids[utterance]!r} of {frames} frames, needs; lower data.max_batch_size or "
            f"quality.max_seconds, or take {remedies}"
        )
    logger.warning("%s; from now on the budget is %d frames (halving %d of at most %d)", tried, after, halvings + 1, allowed)
    return halvings + 1


def of_several_ranks(batch: Batch, ranks: Ranks, config: Config) -> DeviceMemoryError:
    """What a rank ends with that is out of memory while others wait for it; they end with LostRankError."""
    return DeviceMemoryError(
        f"the device of rank {ranks.rank} is out of memory in training, at {_described(batch)}; of {ranks.count} processes one alone cannot make a "
        f"step again: lower data.frame_budget, now {config.data.frame_budget}, and start all of them again"
    )


def undone(learner: Learner) -> Learner:
    """What a step that ran out of memory has left is gone. Not to be called while its exception, which holds on to the step, is handled."""
    for parameter in learner.model.parameters():
        parameter.grad = None
    adam = learner.optimiser.state
    for interrupted in [parameter for parameter, state in adam.items() if not {"step", "exp_avg", "exp_avg_sq"} <= state.keys()]:
        del adam[interrupted]  # Adam was interrupted as it began; it begins anew
    scaler = learner.precision.scaler()  # this one may have unscaled the gradients already, which it does once an update
    scaler.load_state_dict(learner.scaler.state_dict())
    learner.model.forget_loops()
    free()
    return replace(learner, scaler=scaler)


def free() -> None:
    """Gives back what nobody uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _described(batch: Batch) -> str:
    rows, frames = batch.mel_BTM.shape[:2]
    return f"a batch of {rows} x {frames} frames"
