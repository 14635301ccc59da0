"""Training losses and skipped updates, watched step by step."""

import math

from tts.config import RecoveryConfig
from tts.training.recovery.trouble import Doubt, Recorded, Streak, Trouble

SMOOTHED_STEPS = 20
"""Losses of which the mean is taken: batches differ."""


class UpdatesWatch(Recorded):
    """What is remembered of the updates so far. The losses of all ranks' parts together, so that it is the same on all of them."""

    skipped: Streak = Streak()
    """Updates that were not finite."""
    offence: str = ""
    """What was not finite in the last of them."""
    reduction_factor: int = 0
    guidance: float = 0.0
    """Weight of guided attention. Losses are compared as long as the factor is the same and this has not risen."""
    losses: tuple[float, ...] = ()
    lowest: float = math.inf
    """Of the means."""
    lowest_step: int = 0
    mean: float = math.inf
    """The newest; infinite before the first."""
    diverging: Streak = Streak()

    def after(
        self, step: int, loss: float, *, reduction_factor: int, guidance: float, offence: str | None, overflow: bool, rules: RecoveryConfig
    ) -> "UpdatesWatch":
        """With a step's loss, which may be NaN or infinite. An overflow that the gradient scaler handles is neither good nor bad."""
        watch = self if overflow else self.but(skipped=self.skipped.after(step, present=offence is not None), offence=offence or "")
        if reduction_factor != self.reduction_factor or guidance > self.guidance:
            watch = UpdatesWatch(skipped=watch.skipped, offence=watch.offence)
        watch = watch.but(reduction_factor=reduction_factor, guidance=guidance)
        return _with_loss(watch, step, loss, rules) if math.isfinite(loss) else watch

    @property
    def diverging_since(self) -> int:
        """The first of the steps whose mean was too high; 0 where none is."""
        return max(1, self.diverging.since - SMOOTHED_STEPS + 1) if self.diverging.count else 0

    def doubt(self, step: int) -> Doubt:
        """At a step, from where on things may have gone wrong."""
        begun = [since for since in (self.skipped.since, self.diverging_since) if since]
        began_step = min([*begun, step + 1])
        return Doubt(sound_step=began_step, began_step=began_step)

    def trouble(self, step: int, rules: RecoveryConfig) -> Trouble | None:
        """What has come true at a step."""
        if self.skipped.count >= rules.max_skipped_updates:
            sentence = (
                f"{self.skipped.count} updates in a row were not finite (recovery.max_skipped_updates), from step {self.skipped.since}, "
                f"the last at step {step}: {self.offence}"
            )
            since, evidence = self.skipped.since, {"skipped_in_a_row": float(self.skipped.count)}
            return Trouble(trigger="non-finite", sentence=sentence, evidence=evidence, began_step=since, sound_step=since, noticed_step=step)
        if self.diverging.count >= rules.divergence_steps:
            sentence = (
                f"the training loss, {self.mean:.4g} as the mean of {SMOOTHED_STEPS} steps, has been above {rules.divergence_factor:g} times its "
                f"lowest ({self.lowest:.4g} at step {self.lowest_step}) for {self.diverging.count} steps, from step {self.diverging.since}"
            )
            evidence = {"loss": self.mean, "lowest_loss": self.lowest, "lowest_step": self.lowest_step, "diverging_steps": self.diverging.count}
            since = self.diverging_since
            return Trouble(trigger="divergence", sentence=sentence, evidence=evidence, began_step=since, sound_step=since, noticed_step=step)
        return None


def _with_loss(watch: UpdatesWatch, step: int, loss: float, rules: RecoveryConfig) -> UpdatesWatch:
    losses = (*watch.losses, loss)[-SMOOTHED_STEPS:]
    if len(losses) < SMOOTHED_STEPS:
        return watch.but(losses=losses)
    # Summed anew each time: of a running sum a huge loss would leave its rounding behind.
    mean = math.fsum(losses) / SMOOTHED_STEPS
    diverging = watch.diverging.after(step, present=mean > rules.divergence_factor * watch.lowest)
    lowest, lowest_step = (mean, step) if mean < watch.lowest else (watch.lowest, watch.lowest_step)
    return watch.but(losses=losses, mean=mean, diverging=diverging, lowest=lowest, lowest_step=lowest_step)
