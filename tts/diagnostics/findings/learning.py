"""Conditions on the losses: whether they fall, and whether the steps have the right size."""

import math
import statistics

from tts.diagnostics.findings.rule import Facts, Match, late, match, median

OVERFITTING = 1.05
"""Held-out loss at the end above this many times its lowest counts as overfitting."""
PLATEAU_VALIDATIONS = 10
"""Validations before which nothing is said about a plateau."""
PLATEAU_SHARE = 0.4
"""Share of the validations, at the end, in which a run on a plateau has not bettered its loss by PLATEAU_GAIN."""
PLATEAU_GAIN = 0.005
CLIPPED_SHARE = 0.9
"""Share of the late steps with a clipped gradient that a healthy run may have, too: only with spikes it tells of steps that are too large."""
SPIKE = 1.5
"""A logged training loss above this many times the median of the lines around it is a spike."""
SPIKES_SHARE = 0.03
"""Share of the logged losses that are spikes, from which on steps are too large."""
AROUND = 10
"""Lines on either side with which a loss is compared."""
TINY_UPDATE = 1e-5
"""Update ratio, of the median module, below which weights hardly move. A usual one is 1e-3."""


def unknown(facts: Facts) -> Match | None:
    """No validation has a finite mel loss."""
    return match() if facts.record.validation.lowest("mel_loss") is None else None


def _course(facts: Facts) -> tuple[float, float, float, int] | None:
    """First, last and lowest held-out mel loss, and the step of that."""
    best, series = facts.record.validation.lowest("mel_loss"), facts.record.validation
    return None if best is None else (series.columns["mel_loss"][0], series.last("mel_loss"), best[1], best[0])


def newest_not_finite(facts: Facts) -> Match | None:
    """The last validation broke."""
    course = _course(facts)
    if course is None or math.isfinite(course[1]):
        return None
    return match(last=course[1], lowest=course[2], best_step=course[3])


def did_not_fall(facts: Facts) -> Match | None:
    """The last validation is no better than the first."""
    course = _course(facts)
    if course is None or not math.isfinite(course[1]) or len(facts.record.validation.steps) < 2 or course[1] < course[0]:
        return None
    return match(first=course[0], last=course[1], lowest=course[2], best_step=course[3])


def overfitting(facts: Facts) -> Match | None:
    """Held-out loss rose from its lowest."""
    course = _course(facts)
    if course is None or not math.isfinite(course[1]) or did_not_fall(facts) or course[1] <= OVERFITTING * course[2]:
        return None
    return match(last=course[1], lowest=course[2], best_step=course[3])


def one_validation(facts: Facts) -> Match | None:
    """There is no trend to read."""
    course = _course(facts)
    return match(last=course[1]) if course and math.isfinite(course[1]) and len(facts.record.validation.steps) == 1 else None


def fell(facts: Facts) -> Match | None:
    """As it should be."""
    course = _course(facts)
    if course is None or not math.isfinite(course[1]) or one_validation(facts) or did_not_fall(facts) or overfitting(facts):
        return None
    return match(first=course[0], last=course[1], lowest=course[2], best_step=course[3])


def plateau(facts: Facts) -> Match | None:
    """The loss does not fall any more, nor rises."""
    values = [value for value in facts.record.validation.columns.get("mel_loss", ()) if math.isfinite(value)]
    if len(values) < PLATEAU_VALIDATIONS or not fell(facts):
        return None
    recent = round(PLATEAU_SHARE * len(values))
    before, now = min(values[:-recent]), min(values[-recent:])
    if now < (1 - PLATEAU_GAIN) * before:
        return None
    return match(lowest_before=before, lowest_since=now, validations=recent, step=facts.record.validation.steps[-recent - 1])


def steps_too_large(facts: Facts) -> Match | None:
    """Gradients are clipped nearly always, and the loss jumps."""
    losses, norms = facts.record.train.columns.get("loss", ()), late(facts.record.train, "gradient_norm")
    if len(losses) <= 4 * AROUND:
        return None
    clipped = sum(norm > facts.record.config.optimiser.clip_norm for norm in norms) / max(1, len(norms))
    places = range(AROUND, len(losses))
    spikes = sum(losses[place] > SPIKE * _around(losses, place) for place in places)
    if clipped < CLIPPED_SHARE or spikes < SPIKES_SHARE * len(places):
        return None
    return match(clipped_share=clipped, spikes=spikes, lines=len(places), clip_norm=facts.record.config.optimiser.clip_norm)


def _around(losses: tuple[float, ...], place: int) -> float:
    finite = [loss for loss in losses[place - AROUND : place] + losses[place + 1 : place + 1 + AROUND] if math.isfinite(loss)]
    return statistics.median(finite) if finite else math.inf


def steps_too_small(facts: Facts) -> Match | None:
    """Weights hardly move."""
    modules, after = facts.record.modules, facts.record.config.optimiser.warmup_steps
    if modules is None:
        return None
    lines = [place for place, step in enumerate(modules.steps) if step > after]
    ratios = [median([values[place] for place in lines if math.isfinite(values[place])]) for values in modules.update_ratio.values()]
    typical = median([ratio for ratio in ratios if math.isfinite(ratio) and ratio > 0])
    if not typical < TINY_UPDATE:
        return None
    return match(update_ratio=typical, learning_rate=facts.record.train.last("learning_rate"))
