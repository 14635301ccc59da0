"""What a trial is judged by: a weighted sum of validation metrics, all of them needed.

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
    """The weighted sum that the study minimises."""

    terms: tuple[ObjectiveTerm, ...]

    def check(self, known: Sequence[str]) -> None:
        """Raises UsageError for a metric that validation does not measure, with the nearest one that it does."""
        for term in self.terms:
            if term.metric not in known:
                close = difflib.get_close_matches(term.metric, known, n=1, cutoff=0.4)
                hint = f"did you mean {close[0]}?" if close else f"validation measures {', '.join(known)}"
                raise UsageError(f"tuning.objective: {term.metric!r} is not a validation metric; {hint}")

    def value(self, metrics: Mapping[str, float]) -> float:
        """The sum of weight x metric, maximised metrics with a minus. Raises UnusableMetricError naming the metric."""
        total = 0.0
        for term in self.terms:
            if term.metric not in metrics:
                raise UnusableMetricError(f"metric {term.metric} is missing")
            metric = metrics[term.metric]
            if not math.isfinite(metric):
                raise UnusableMetricError(f"metric {term.metric} is {metric}")
            total += term.weight * (metric if term.direction == "minimise" else -metric)
        if not math.isfinite(total):
            raise UnusableMetricError(f"the sum of {', '.join(term.metric for term in self.terms)} is {total}")
        return total

    def __str__(self) -> str:
        signs = {"minimise": "+", "maximise": "-"}
        text = " ".join(f"{signs[term.direction]} {term.weight:g} {term.metric}" for term in self.terms)
        return text.removeprefix("+ ")
