"""What became of a study's workers, as the study keeps it."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from tts.tuning.database.attributes import FLEET
from tts.tuning.study import Study


class EndedWorker(BaseModel):
    """A worker that ended before the study did."""

    model_config = ConfigDict(frozen=True)

    worker: str
    code: int
    """Exit code; negative: killed by that signal."""
    reason: str
    """In words that follow its name, such as "was evicted: The node was low on resource: memory"."""
    log: str
    """Its last lines."""
    at: float
    """When that was noticed, in seconds since 1970."""


class FleetRecord(BaseModel):
    """The last of each, over all calls of `tts tune`."""

    model_config = ConfigDict(frozen=True)

    ended: list[EndedWorker] = []
    notes: list[str] = []
    """What befell workers that were started again."""
    waits: list[str] = []
    """Why workers had to wait."""

    @staticmethod
    def of(study: Study) -> "FleetRecord":
        """As the study has it. Raises KeyError for a study that was deleted, SQLAlchemyError."""
        kept: dict[str, Any] = study.trials.user_attrs.get(FLEET, {})
        return FleetRecord.model_validate(kept)


def reason_of(line: str) -> str:
    """Of a line such as "2 pods wait: no node has a GPU" what stays as the number changes."""
    return line.partition(": ")[2] or line
