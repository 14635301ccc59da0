"""What is recorded of a suspicion, and what is known once it is one no longer."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

Trigger = Literal["non-finite", "divergence", "attention collapse", "gate collapse"]


class Recorded(BaseModel):
    """Base of what travels in the checkpoint: plain values, never changed in place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def but(self, **values: object) -> Self:
        """The same with some values replaced."""
        return self.model_copy(update=values)


class Streak(Recorded):
    """How long something has gone on without a break."""

    count: int = 0
    since: int = 0
    """Step of the first time; 0 where it does not go on."""

    def after(self, step: int, *, present: bool) -> "Streak":
        """With what was seen at a step."""
        return Streak(count=self.count + 1, since=self.since or step) if present else Streak()


class Trouble(Recorded):
    """That a run went wrong, as its record tells."""

    trigger: Trigger
    sentence: str
    evidence: dict[str, float]
    """Finite numbers."""
    began_step: int
    sound_step: int
    """The last step of which it is known that this was not yet so: `began_step`, or the last sound validation."""
    noticed_step: int


class Doubt(Recorded):
    """Where a trouble would have begun if it were to show later, or does show already."""

    sound_step: int
    began_step: int

    def spares(self, step: int, probation_steps: int) -> bool:
        """Whether a checkpoint of that step is proven healthy: it was followed by enough steps that went well."""
        return step <= self.sound_step and step + probation_steps <= self.began_step
