"""All faults, one after the other, and what came of them."""

import time
from pathlib import Path

from tests.chaos.faults.catalogue import FAULTS
from tests.chaos.faults.fault import Found, judge
from tests.chaos.faults.stage import Stage
from tests.chaos.verdict import Verdict
from tts.progress import Progress

TIMES = 3
"""Each fault, with other seeds: in other recordings, batches, bits."""


def show(folder: Path, seed: int, progress: Progress) -> Verdict:
    """Plays in an empty folder and judges."""
    begun = time.monotonic()
    stage = Stage(folder)
    stage.build()
    cases = [(fault, number) for number in range(seed, seed + TIMES) for fault in FAULTS if not fault.hindrance()]
    found = list[Found]()
    with progress.task("Faults", total=len(cases)) as task:
        for fault, number in cases:
            found.append(judge(fault, stage, number))
            task.advance(1, misnamed=str(_misnamed(found)), ended_wrongly=str(_ended_wrongly(found)))
    figures = {
        "faults_injected": len(cases),
        "faults_kinds": len({fault.name for fault, _ in cases}),
        "faults_misnamed": _misnamed(found),
        "faults_ended_wrongly": _ended_wrongly(found),
        "faults_seconds": round(time.monotonic() - begun, 1),
    }
    return Verdict(figures, tuple(text for one in found for text in (*one.misnamed, *one.ended)))


def _misnamed(found: list[Found]) -> int:
    return sum(bool(one.misnamed) for one in found)


def _ended_wrongly(found: list[Found]) -> int:
    return sum(bool(one.ended) for one in found)
