"""What a rule is: a condition on a run's figures, a sentence that tells them, and what to do about it."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tts.diagnostics.measured import Measured
from tts.diagnostics.page import show
from tts.diagnostics.run_record import RunRecord, Series

Level = Literal["good", "warning", "bad"]
Evidence = dict[str, float]


@dataclass(frozen=True)
class Turn:
    """A knob, and which way to turn it."""

    knob: str
    """By its full name, such as optimiser.learning_rate."""
    way: Literal["raise", "lower", "set"]
    to: float | str | None = None
    """The value, where one follows from the run."""

    @property
    def target(self) -> str:
        """As in: optimiser.learning_rate to 0.0005."""
        return self.knob if self.to is None else f"{self.knob} to {self.to:g}" if isinstance(self.to, float) else f"{self.knob} to {self.to}"


@dataclass(frozen=True)
class Finding:
    """One statement."""

    level: Level
    text: str
    code: str
    """Stays the same from release to release, for machines."""
    evidence: Evidence
    """What was measured, by name."""
    turns: tuple[Turn, ...] = ()
    """Knobs that help, the likeliest first; any of them may do."""
    remedy: str = ""
    """What else can be done."""

    @property
    def advice(self) -> str:
        """What to do, as a sentence; empty where nothing needs to be done."""
        ways = dict.fromkeys(turn.way for turn in self.turns)
        turns = ", or ".join(f"{way} {_either([turn.target for turn in self.turns if turn.way == way])}" for way in ways)
        words = "; ".join(part for part in (turns, self.remedy) if part)
        return f"{words[:1].upper()}{words[1:]}." if words else ""


def _either(names: list[str]) -> str:
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


@dataclass(frozen=True)
class Match:
    """That a condition holds: the evidence, and words and further turns that the sentence and the advice need."""

    evidence: Evidence
    words: dict[str, str]
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What conditions look at."""

    record: RunRecord
    last: Measured | None
    """The newest snapshot."""
    earlier: tuple[Measured, ...] = ()
    """Those before it, by step, as far as they were read."""

    @property
    def under_way(self) -> bool:
        """Whether the run goes on."""
        return self.record.state == "running"


def match(*, turns: tuple[Turn, ...] = (), words: dict[str, str] | None = None, **evidence: float) -> Match:
    """A match with this evidence."""
    return Match(evidence, words or {}, turns)


def late(series: Series, name: str, share: float = 0.5) -> list[float]:
    """Finite values of a column in the last `share` of its lines."""
    column = series.columns.get(name, ())
    return [value for value in column[len(column) - math.ceil(share * len(column)) :] if math.isfinite(value)]


def median(values: list[float]) -> float:
    """NaN for none."""
    return statistics.median(values) if values else math.nan


@dataclass(frozen=True)
class Rule:
    """A line of the table."""

    code: str
    level: Level
    condition: Callable[[Facts], Match | None]
    sentence: str
    """{name} stands for evidence, or for words of the match."""
    turns: tuple[Turn, ...] = ()
    remedy: str = ""

    def applied(self, facts: Facts) -> Finding | None:
        """The finding, or None where the condition does not hold."""
        found = self.condition(facts)
        if found is None:
            return None
        shown = {name: show(value) for name, value in found.evidence.items()} | found.words
        remedy = self.remedy.format(**shown)
        return Finding(self.level, self.sentence.format(**shown), self.code, found.evidence, found.turns or self.turns, remedy)


def higher(knob: str) -> Turn:
    """Advice to raise a knob."""
    return Turn(knob, "raise")


def lower(knob: str, to: float | None = None) -> Turn:
    """Advice to lower a knob."""
    return Turn(knob, "lower", to)
