"""The kills of training, from the corpus to the verdict."""

import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.training.kills import Kills
from tests.chaos.training.runs import KINDS, Kind, Place
from tests.chaos.verdict import Verdict
from tts.progress import Progress


@dataclass(frozen=True)
class Plan:
    """One performance."""

    kills: int
    kinds: tuple[Kind, ...] = KINDS
    seed: int = 0


FULL = Plan(kills=200)
SHORT = Plan(kills=4, kinds=KINDS[1:2])


def show(plan: Plan, folder: Path, progress: Progress) -> Verdict:
    """Plays in an empty folder and judges."""
    begun = time.monotonic()
    place = Place(folder)
    place.build()
    with progress.task("Kills of training", total=plan.kills) as task:
        kills = Kills(place, plan.kinds, plan.kills, plan.seed, task)
        kills.perform()
    figures = {
        "training_kills": kills.signals.total(),
        "training_resumes_not_exact": kills.not_exact,
        "training_surprises": len(kills.surprises),
        "training_runs_killed": kills.runs,
        "training_kills_amid_writing": kills.amid_writing,
        **{f"training_{name.lower()}s": times for name, times in sorted(kills.signals.items())},
        "training_seconds": round(time.monotonic() - begun, 1),
    }
    wrong = [*kills.inexact, *kills.surprises]
    if kills.signals.total() != plan.kills:
        wrong.append(f"training_kills is {kills.signals.total()}, not {plan.kills}")
    return Verdict(figures, tuple(wrong))
