"""A restart carried out: the checkpoint to go back to, and what the run takes with it."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from tts.config import Config
from tts.data.store import FeatureStore
from tts.errors import TrainingDivergedError
from tts.training.checkpoint import Checkpoints
from tts.training.recovery.ladder import Restart, describe, next_restart
from tts.training.recovery.trouble import Doubt, Trigger, Trouble
from tts.training.recovery.watch import Watch
from tts.training.updates import Updates

ADVICE: dict[Trigger, str] = {
    "non-finite": "lower optimiser.learning_rate or optimiser.clip_norm, or correct the utterances that are named",
    "divergence": "lower optimiser.learning_rate or optimiser.clip_norm, or look at the corpus: `tts diagnose`",
    "attention collapse": "raise guided_attention.weight or guided_attention.decay_steps, or model.reduction_factor",
    "gate collapse": "raise losses.gate_weight or losses.gate_positive_weight",
}
"""What a person may try once the ladder has ended."""


def go_back(updates: Updates, checkpoints: Checkpoints, trouble: Trouble, about: Mapping[str, Any], store: FeatureStore, config: Config) -> Restart:
    """Takes the updates back to the newest checkpoint that is proven healthy, or to fresh weights, and applies the next remedy.

    From the moment in which the checkpoints' index names the new state the run has the restart. `about` is what a checkpoint holds beside the
    updates' state. Raises CannotWriteError, UsageError.
    """
    rules = config.recovery
    doubt = Doubt(sound_step=trouble.sound_step, began_step=trouble.began_step)
    content = checkpoints.proven(doubt, rules.probation_steps, updates.device)
    step = content["step"] if content else 0
    restart = next_restart(config, updates.restarts, trouble, step)
    restarts = (*updates.restarts, restart)
    if content is None:
        content = {**Updates(store, config, updates.ranks, restarts).state(), **about}
    content["tally"] = asdict(replace(updates.tally, step=step))
    content["watch"] = Watch.model_validate(content.get("watch", {})).anew().model_dump()
    content["restarts"] = [made.model_dump() for made in restarts]
    checkpoints.go_back(step, content, restart.number)
    updates.load(content)
    return restart


def diverged(trouble: Trouble, restarts: tuple[Restart, ...], run: object) -> TrainingDivergedError:
    """What a run ends with whose ladder has ended."""
    tried = "; ".join(
        f"{made.number}: {made.trigger} at step {made.noticed_step}, back to step {made.back_to_step}, {describe(made)}" for made in restarts
    )
    before = f"; its {len(restarts)} restarts (recovery.remedies) did not help: {tried}; see {run}/restarts" if restarts else ""
    anomalies = f"; see {run}/anomalies" if trouble.trigger == "non-finite" else ""
    return TrainingDivergedError(f"{trouble.trigger}: {trouble.sentence}{before}{anomalies}; {ADVICE[trouble.trigger]}")
