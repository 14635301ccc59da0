"""The ladder of remedies: what a restart changes. What was changed stands in the record, not in the ladder, which a user may rewrite."""

from collections.abc import Sequence

import numpy as np

from tts.config import Config, Remedy
from tts.config.load import override
from tts.training.recovery.trouble import Recorded, Trigger, Trouble

Value = float | int | str


class Restart(Recorded):
    """One restart: why, from where to where, and what has been different since."""

    number: int
    """From 1."""
    trigger: Trigger
    sentence: str
    """With the evidence, for a person."""
    evidence: dict[str, float]
    began_step: int
    noticed_step: int
    back_to_step: int
    """Of the checkpoint; 0: fresh weights."""
    remedy: dict[str, tuple[Value, Value]]
    """Knob: value before and after."""


def effective_config(config: Config, restarts: Sequence[Restart]) -> Config:
    """The configuration under which a run goes on after its restarts."""
    if not restarts:
        return config
    return override(config, {knob: after for restart in restarts for knob, (_, after) in restart.remedy.items()}, "the run's restarts")


def next_restart(config: Config, restarts: Sequence[Restart], trouble: Trouble, back_to_step: int) -> Restart:
    """The restart by the ladder's next remedy, whose factors multiply with those of the restarts before."""
    number = len(restarts) + 1
    remedy = _changes(config, effective_config(config, restarts), config.recovery.remedies[number - 1], number, back_to_step)
    return Restart(
        number=number,
        trigger=trouble.trigger,
        sentence=trouble.sentence,
        evidence=trouble.evidence,
        began_step=trouble.began_step,
        noticed_step=trouble.noticed_step,
        back_to_step=back_to_step,
        remedy=remedy,
    )


def describe(restart: Restart) -> str:
    """What it changed, in words; the seed is left out, as it changes each time."""
    changes = [f"{knob} {_show(before)} -> {_show(after)}" for knob, (before, after) in restart.remedy.items() if knob != "training.seed"]
    return ", ".join([*changes, "another order of the data"])


def _changes(asked: Config, now: Config, remedy: Remedy, number: int, back_to_step: int) -> dict[str, tuple[Value, Value]]:
    guided = now.guided_attention.weight * remedy.guided_attention
    wanted: dict[str, tuple[Value, Value]] = {
        "optimiser.learning_rate": (now.optimiser.learning_rate, now.optimiser.learning_rate * remedy.learning_rate),
        "optimiser.clip_norm": (now.optimiser.clip_norm, now.optimiser.clip_norm * remedy.clip_norm),
        "guided_attention.weight": (now.guided_attention.weight, guided),
        "training.precision": (now.training.precision, "fp32" if remedy.precision == "fp32" else now.training.precision),
        "training.seed": (now.training.seed, _seed(asked.training.seed, number)),
    }
    if guided > now.guided_attention.weight:  # its fading begins anew where the run goes on
        wanted["guided_attention.hold_steps"] = (now.guided_attention.hold_steps, back_to_step + asked.guided_attention.hold_steps)
    return {knob: (before, after) for knob, (before, after) in wanted.items() if before != after}


def _seed(seed: int, number: int) -> int:
    """Of data order, dropout and fresh weights after a restart."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0] >> 1)


def _show(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
