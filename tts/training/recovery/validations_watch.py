"""Attention and stop gate on the held-out utterances, watched from validation to validation."""

import math
from collections.abc import Mapping

from tts.config import GuidedAttentionConfig, RecoveryConfig
from tts.training.recovery.trouble import Doubt, Recorded, Streak, Trigger, Trouble

WORKING_GATE = 0.5
"""Share of held-out utterances whose gate opens on time, from which on the gate counts as found; only then can it collapse.

That of an untrained network opens here and there, but early: it opens in every other frame, or in hardly any."""


class Faculty(Recorded):
    """One thing that a network learns and may lose again."""

    best: float = -math.inf
    best_step: int = 0
    value: float = -math.inf
    """The newest; as here, where the network has none."""
    sound_step: int = 0
    """Of the last validation at which it was not lost."""
    lost: Streak = Streak()

    def after(self, step: int, value: float, *, lost: bool) -> "Faculty":
        """With a validation's value, which is NaN where the network is."""
        better = value > self.best
        return Faculty(
            best=value if better else self.best,
            best_step=step if better else self.best_step,
            value=-math.inf if math.isnan(value) else value,
            sound_step=self.sound_step if lost else step,
            lost=self.lost.after(step, present=lost),
        )

    def doubt(self, step: int) -> Doubt:
        """At a step, from where on it may have been lost."""
        return Doubt(sound_step=self.sound_step, began_step=self.lost.since or step + 1)


class ValidationsWatch(Recorded):
    """What is remembered of the validations so far."""

    step: int = 0
    """Of the newest."""
    attention: Faculty = Faculty()
    gate: Faculty = Faculty()

    def after(self, step: int, metrics: Mapping[str, float], guidance: GuidedAttentionConfig, rules: RecoveryConfig) -> "ValidationsWatch":
        """With a validation's metrics; those of an older version may lack one."""
        attention, gate = self.attention, self.gate
        diagonality, on_time = metrics.get("attention_diagonality"), metrics.get("gate_on_time")
        if diagonality is not None:
            judged = faded(guidance, step) and attention.best >= rules.aligned_diagonality and rules.collapse_share > 0
            attention = attention.after(step, diagonality, lost=judged and not diagonality >= rules.collapse_share * attention.best)
        if on_time is not None:
            gate = gate.after(step, on_time, lost=gate.best >= WORKING_GATE and not on_time > 0)
        return ValidationsWatch(step=step, attention=attention, gate=gate)

    def doubts(self, step: int, rules: RecoveryConfig) -> list[Doubt]:
        """At a step, from where on what was found may have been lost."""
        found = [(self.attention, rules.aligned_diagonality), (self.gate, WORKING_GATE)]
        return [faculty.doubt(step) for faculty, least in found if faculty.best >= least]

    def trouble(self, step: int, rules: RecoveryConfig) -> Trouble | None:
        """What has come true at a step."""
        attention, gate = self.attention, self.gate
        if attention.lost.count >= rules.collapse_validations:
            sentence = (
                f"attention was found (diagonality {attention.best:.3f} at step {attention.best_step}) and lost: {attention.value:.3f} is less than "
                f"{rules.collapse_share:g} of that, for {attention.lost.count} validations, from step {attention.lost.since}"
            )
            return _trouble("attention collapse", sentence, attention, "diagonality", step)
        if gate.lost.count >= rules.collapse_validations:
            sentence = (
                f"the stop gate opened near the end of {gate.best:.0%} of the held-out utterances (step {gate.best_step}) and now of none: it never "
                f"opens, or long before, for {gate.lost.count} validations, from step {gate.lost.since}"
            )
            return _trouble("gate collapse", sentence, gate, "gate_on_time", step)
        return None


def faded(guidance: GuidedAttentionConfig, step: int) -> bool:
    """Whether guided attention has come down to its final share, so that attention stands by itself."""
    return guidance.weight == 0 or step >= guidance.hold_steps + guidance.decay_steps


def _trouble(trigger: Trigger, sentence: str, faculty: Faculty, name: str, step: int) -> Trouble:
    measured = {name: faculty.value, f"best_{name}": faculty.best, "best_step": faculty.best_step, "validations": faculty.lost.count}
    evidence = {name: value for name, value in measured.items() if math.isfinite(value)}
    return Trouble(
        trigger=trigger, sentence=sentence, evidence=evidence,
        began_step=faculty.lost.since, sound_step=faculty.sound_step, noticed_step=step,
    )  # fmt: skip
