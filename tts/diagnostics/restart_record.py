"""restarts/NN: each time that a run went back to a healthy checkpoint, with what it abandoned."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts.diagnostics.json_files import number, read_object
from tts.errors import DataError

SEED = "training.seed"


@dataclass(frozen=True)
class Restart:
    """One of them."""

    number: int
    trigger: str
    """Such as non-finite, divergence, attention collapse, gate collapse."""
    sentence: str
    """Why, with the evidence."""
    evidence: dict[str, float]
    began_step: int
    """Where it began to go wrong."""
    noticed_step: int
    back_to_step: int
    remedy: dict[str, tuple[Any, Any]]
    """Knob to its value before and after."""
    folder: Path
    """Of what was abandoned: metrics.jsonl, modules.jsonl, snapshots/, anomalies/."""

    @property
    def changes(self) -> str:
        """The remedy in words. The order of the data changes each time, by the seed."""
        turned = [f"{knob} {_show(before)} → {_show(after)}" for knob, (before, after) in self.remedy.items() if knob != SEED]
        return ", ".join(turned) or "the order of the data"


def read_restarts(run: Path) -> tuple[Restart, ...]:
    """By number; none where the folder has none. Raises DataError."""
    return tuple(_restart(path) for path in sorted((run / "restarts").glob("*/restart.json")))


def _restart(path: Path) -> Restart:
    values = read_object(path)
    try:
        return Restart(
            number=int(values["number"]),
            trigger=str(values["trigger"]),
            sentence=str(values["sentence"]),
            evidence={str(name): number(value) for name, value in values["evidence"].items()},
            began_step=int(values["began_step"]),
            noticed_step=int(values["noticed_step"]),
            back_to_step=int(values["back_to_step"]),
            remedy={str(knob): (before, after) for knob, (before, after) in values["remedy"].items()},
            folder=path.parent,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} does not tell of a restart ({type(error).__name__}: {error}); restore it from a copy, or remove it") from error


def _show(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
