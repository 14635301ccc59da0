"""What a fault is: how it is injected, what the product has to say of it, and how it has to end."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.faults.stage import Scene, Stage, findings


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    name: str
    injected: str
    """In words, what was done and to what."""
    inject: Callable[[Scene], None]
    """Does it, runs the commands, and leaves how they ended in the scene."""
    ends: tuple[int, ...]
    """Exit codes of the commands, one after the other."""
    means: str
    """The end in words."""
    names: frozenset[str] = frozenset()
    """Names by which records have to tell of it, and no others: `rejected: REASON`, `anomaly: KIND NAME`, `restart: TRIGGER`."""
    finds: frozenset[str] = frozenset()
    """Codes of findings that `tts diagnose` has to have among its own."""
    says: tuple[str, ...] = ()
    """Words that the program has to say; * stands for any others."""
    exact: bool | None = None
    """Whether the run has to come out, to the bit, as the one that nothing befell."""
    hindrance: Callable[[], str] = str
    """Why it cannot be injected on this machine; empty where it can."""


@dataclass(frozen=True)
class Found:
    """What came of a fault."""

    misnamed: tuple[str, ...] = field(default=())
    """What was said wrongly, or not at all."""
    ended: tuple[str, ...] = field(default=())
    """What ended otherwise than it has to."""


def judge(fault: Fault, stage: Stage, seed: int) -> Found:
    """Injects it and looks."""
    scene = stage.scene(f"{fault.name} {seed}".replace(" ", "-"), seed)
    fault.inject(scene)
    codes, names = tuple(scene.codes), scene.names()
    if fault.finds:
        scene.tts("diagnose", scene.run)
    found = findings(scene.run) if fault.finds else set()
    misnamed = [
        *(f"does not say {name!r}" for name in sorted(fault.names - names)),
        *(f"says {name!r}" for name in sorted(names - fault.names)),
        *(f"does not find {code!r}" for code in sorted(fault.finds - found)),
        *(f"does not say {words!r}" for words in fault.says if not scene.says(words)),
    ]
    ended = [f"ended with {codes}, not {fault.ends}"] if codes != fault.ends else []
    if scene.exact != fault.exact:
        ended.append("did not come out as the run that nothing befell")
    where = f"{fault.name}, seed {seed}: "
    return Found(*(tuple(f"{where}{text}; see {scene.log}" for text in texts) for texts in (misnamed, ended)))
