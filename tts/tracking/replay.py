"""What a run's records come to when they are read in order: parts, each of which the store takes in one call.

Reading the same records gives the same parts in any process and at any time. Hence a value that was recorded again, by an attempt that repeats
what a killed one had done, arrives once; values that are not finite are counted over all attempts; and of several attempts the one that began
last speaks for the run.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tts.tracking.spool import Record

METRICS, OTHERS = 800, 100
"""Metrics, and parameters or tags, in one call: MLflow takes 100 of either and 1000 of all."""
PARAM_LENGTH, TAG_LENGTH = 6000, 5000
"""Characters that MLflow takes of a value."""


@dataclass(frozen=True)
class Start:
    """A run begins, or goes on."""

    name: str
    milliseconds: int
    parent: str
    """Our key of the run that it hangs below, or ""."""
    inherited: str
    """The store's own id of that run, where the run was begun inside another program's."""


@dataclass(frozen=True)
class Artefact:
    """A copy to be stored."""

    copy: str
    folder: str


@dataclass(frozen=True)
class End:
    """A run ends."""

    status: str
    milliseconds: int


class Metric(NamedTuple):
    """A measurement."""

    name: str
    value: float
    milliseconds: int
    step: int


class Param(NamedTuple):
    """A parameter: written once."""

    name: str
    text: str


class Tag(NamedTuple):
    """A tag: the last one stays."""

    name: str
    text: str


Item = Metric | Param | Tag


@dataclass
class Values:
    """What records of values come to together."""

    metrics: list[Metric] = field(default_factory=list)
    params: dict[str, Param] = field(default_factory=dict)
    tags: dict[str, Tag] = field(default_factory=dict)

    def full(self) -> bool:
        """Whether it fills a call."""
        return len(self.metrics) >= METRICS or len(self.params) >= OTHERS or len(self.tags) >= OTHERS

    def calls(self) -> list[list[Item]]:
        """The items of each call: one, unless a single record holds more than the store takes at once."""
        params, tags = list(self.params.values()), list(self.tags.values())
        count = max(math.ceil(len(self.metrics) / METRICS), math.ceil(len(params) / OTHERS), math.ceil(len(tags) / OTHERS))
        return [
            [
                *self.metrics[call * METRICS : (call + 1) * METRICS],
                *params[call * OTHERS : (call + 1) * OTHERS],
                *tags[call * OTHERS : (call + 1) * OTHERS],
            ]
            for call in range(count)
        ]


@dataclass(frozen=True)
class Part:
    """One thing to do, and where the records that it stands for end."""

    content: Start | Artefact | End | Values
    end: int
    records: int


class Replay:
    """Reads a run's records. Keeps what later ones depend on; always from the first record on."""

    def __init__(self) -> None:
        self.attempt = ""
        """The one that speaks for the run."""
        self.ended = True
        self.offset = 0
        self._seen: dict[str, set[int]] = {}
        self._non_finite: Counter[str] = Counter()
        self._params: dict[str, str] = {}

    def skip(self, records: Iterable[tuple[Record, int]]) -> None:
        """Reads, without sending, what was sent already."""
        for record, end in records:
            self._single(record)
            self._add(record, Values())
            self.offset = end

    def parts(self, records: Iterable[tuple[Record, int]]) -> Iterator[Part]:
        """The records in parts; neighbours whose values the store takes together are one."""
        values, count = Values(), 0
        for record, end in records:
            single = self._single(record)
            if (single is not None or values.full()) and count:
                yield Part(values, self.offset, count)
                values, count = Values(), 0
            self.offset = end
            if single is not None:
                yield Part(single, end, 1)
                continue
            self._add(record, values)
            count += 1
        if count:
            yield Part(values, self.offset, count)

    def _single(self, record: Record) -> Start | Artefact | End | None:
        kind = record["kind"]
        if kind == "start":
            self.attempt, self.ended = record["attempt"], False
            if record.get("anew"):
                self._seen.clear()
            return Start(record["name"], record["ms"], record.get("parent") or "", record.get("inherited") or "")
        if kind == "artefact":
            return Artefact(record["copy"], record["folder"])
        if kind == "end" and record["attempt"] == self.attempt:
            self.ended = True
            return End(record["status"], record["ms"])
        return None

    def _add(self, record: Record, values: Values) -> None:
        kind = record["kind"]
        if kind == "metrics" and record["attempt"] == self.attempt:
            self._add_metrics(record, values)
        elif kind == "params":
            for name, text in record["values"].items():
                known = self._params.setdefault(name, text)
                if known != text:
                    values.tags[f"changed.{name}"] = changed(name, text)
                else:
                    values.params[name] = Param(name, text[:PARAM_LENGTH])
        elif kind == "tags":
            values.tags.update({name: Tag(name, text[:TAG_LENGTH]) for name, text in record["values"].items()})

    def _add_metrics(self, record: Record, values: Values) -> None:
        step: int = record["step"]
        for name, value in record["values"].items():
            if self._is_new(name, step):
                values.metrics.append(Metric(name, value, record["ms"], step))
        for name in record["non_finite"]:
            if self._is_new(name, step):
                self._non_finite[name] += 1
                values.tags[f"non_finite.{name}"] = Tag(f"non_finite.{name}", str(self._non_finite[name]))

    def _is_new(self, name: str, step: int) -> bool:
        steps = self._seen.setdefault(name, set())
        known = step in steps
        steps.add(step)
        return not known


def changed(name: str, text: str) -> Tag:
    """What tells that a parameter has another value than the one that was written first."""
    return Tag(f"changed.{name}", text[:TAG_LENGTH])
