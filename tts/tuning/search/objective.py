"""What a trial is judged by: for each objective a weighted sum of validation metrics, all of them needed.

The terms are fixed for the whole study. A metric that is missing or not finite fails the trial; it is never replaced by a number and
the other weights are never rescaled, so that a broken trial cannot look better than a working one.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tts.config import ObjectiveTerm
from tts.errors import TtsError, UsageError


class UnusableMetricError(TtsError):
    """A metric of the objective is missing or not finite: the trial has no value."""


@dataclass(frozen=True)
class Objective:
    """The weighted sums that the study minimises: one for each name in the terms, in the order in which names first appear."""

    terms: tuple[ObjectiveTerm, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the objectives."""
        return tuple(dict.fromkeys(term.objective for term in self.terms))

    @property
    def several(self) -> bool:
        """Whether the study searches for a Pareto set."""
        return len(self.names) > 1

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that a validation must hold."""
        return tuple(dict.fromkeys(term.metric for term in self.terms))

    def check(self, known: Sequence[str], needs: Mapping[str, str] | None = None) -> None:
        """Raises UsageError for a metric that validation does not measure, with the nearest one that it does.

        `needs` names the knobs that some metrics are not measured without.
        """
        for metric in self.metrics:
            if metric not in known:
                if metric in (needs or {}):
                    raise UsageError(
                        f"tuning.objective: {metric!r} is not measured while {(needs or {})[metric]} is 0; set it, or leave the metric out"
                    )
                close = difflib.get_close_matches(metric, known, n=1, cutoff=0.4)
                hint = f"did you mean {close[0]}?" if close else f"validation measures {', '.join(known)}"
                raise UsageError(f"tuning.objective: {metric!r} is not a validation metric; {hint}")

    def values(self, metrics: Mapping[str, float], step: int | None = None) -> tuple[float, ...]:
        """For each objective the sum of weight x metric / scale, maximised metrics with a minus. `step` is for the message.

        Raises:
            UnusableMetricError: A metric is missing or not finite, or a sum is not; it is named, with its value.
        """
        at = "" if step is None else f" at step {step}"
        for metric in self.metrics:
            if metric not in metrics:
                raise UnusableMetricError(f"metric {metric} is missing{at}")
            if not math.isfinite(metrics[metric]):
                raise UnusableMetricError(f"metric {metric} is {metrics[metric]}{at}")
        sums = tuple(sum(_enters(term, metrics[term.metric]) for term in self.terms if term.objective == name) for name in self.names)
        for name, total in zip(self.names, sums, strict=True):
            if not math.isfinite(total):
                summed = ", ".join(term.metric for term in self.terms if term.objective == name)
                raise UnusableMetricError(f"the sum of {summed} is {total}{at}")
        return sums

    def __str__(self) -> str:
        return "; ".join(f"{name}: {self._sum(name)}" for name in self.names) if self.several else self._sum(self.names[0])

    def _sum(self, name: str) -> str:
        signs = {"minimise": "+", "maximise": "-"}
        terms = [term for term in self.terms if term.objective == name]
        text = " ".join(f"{signs[term.direction]} {term.weight:g} {term.metric}{_scale(term)}" for term in terms)
        return text.removeprefix("+ ")


def _enters(term: ObjectiveTerm, metric: float) -> float:
    return term.weight * (metric if term.direction == "minimise" else -metric) / term.scale


def _scale(term: ObjectiveTerm) -> str:
    return "" if term.scale == 1 else f" / {term.scale:g}"
