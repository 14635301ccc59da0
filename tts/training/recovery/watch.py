"""All that a run remembers in order to notice that it went wrong. Pure: it travels in the checkpoint, and a resumed run decides alike."""

from tts.config import RecoveryConfig
from tts.training.recovery.trouble import Doubt, Recorded, Streak, Trouble
from tts.training.recovery.updates_watch import UpdatesWatch
from tts.training.recovery.validations_watch import ValidationsWatch


class Watch(Recorded):
    """The record by which a run is judged."""

    updates: UpdatesWatch = UpdatesWatch()
    validations: ValidationsWatch = ValidationsWatch()

    def anew(self) -> "Watch":
        """As it is taken up by a restart: what was remembered at the checkpoint stands, no streak goes on."""
        attention, gate = (faculty.but(lost=Streak()) for faculty in (self.validations.attention, self.validations.gate))
        updates = self.updates.but(skipped=Streak(), offence="", diverging=Streak())
        return Watch(updates=updates, validations=self.validations.but(attention=attention, gate=gate))

    def trouble(self, step: int, rules: RecoveryConfig) -> Trouble | None:
        """What has come true at a step; the first in the order of docs/recovery.md."""
        return self.updates.trouble(step, rules) or self.validations.trouble(step, rules)

    def doubts(self, step: int, rules: RecoveryConfig) -> list[Doubt]:
        """At a step, from where on each kind of trouble may have begun: what a checkpoint must come before."""
        return [self.updates.doubt(step), *self.validations.doubts(step, rules)]
