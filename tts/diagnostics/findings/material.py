"""Conditions on what is trained with and what is trained: the corpus, and the parts of the network."""

import math
from collections import Counter

import numpy as np

from tts.diagnostics.findings.course import listed
from tts.diagnostics.findings.rule import Facts, Match, match, median

REJECTED_SHARE = 0.1
"""Share of the clips that were left out, above which it is worth saying."""
QUIET = -5.0
"""Log magnitude: recordings in which no mel cell is louder hold next to no speech, whose peaks are near 0."""
MODULE_LINES = 3
"""Lines of modules.jsonl before which nothing is said about a module."""
VANISHING = 1e-5
"""Of the median module's gradient norm."""
EXPLODING = 100.0
"""Times a module's own median gradient norm, in two lines or more, while the whole norm is beyond ten times what it is clipped to."""
DEAD_SHARE = 0.3
"""Share of the prenet's units that are never active, above which it is worth saying."""
SATURATED_SHARE = 0.3
"""The same of units that are at the end of their range."""
SATURATION = "activation_saturation_"


def untrained_symbols(facts: Facts) -> Match | None:
    """Symbols with a sound, or of held-out texts, that no text to train on has: their vectors stay random."""
    corpus = facts.record.corpus
    if corpus is None:
        return None
    dead = [symbol for symbol, count in corpus.training.items() if not count and (symbol in corpus.dead or corpus.held_out.get(symbol, 0))]
    if not dead:
        return None
    return match(symbols=len(dead), of=len(corpus.training), words={"names": listed([f"“{symbol}”" for symbol in dead])})


def many_rejected(facts: Facts) -> Match | None:
    """Quality control left many clips out."""
    corpus = facts.record.corpus
    if corpus is None or not corpus.rejected:
        return None
    every = len(corpus.rejected) + sum(corpus.utterances.values())
    share = len(corpus.rejected) / every
    reason, count = Counter(reason.split(":")[0] for _, reason in corpus.rejected).most_common(1)[0]
    if share <= REJECTED_SHARE:
        return None
    return match(share=share, rejected=len(corpus.rejected), clips=every, most_frequent=count, words={"reason": reason})


def silent(facts: Facts) -> Match | None:
    """Clips with next to no energy: rejected as silent, or held out and heard to be."""
    rejected = facts.record.corpus.rejected if facts.record.corpus else None
    names = [identity for identity, reason in rejected or () if "silent" in reason]
    if facts.last:
        snapshot = facts.last.snapshot
        loudest = [_loudest(mel_TM[:length]) for mel_TM, length in zip(snapshot.mel_target_BTM, snapshot.mel_lengths_B, strict=True)]
        names += [identity for identity, peak in zip(snapshot.ids, loudest, strict=True) if peak < QUIET]
    held = "1 clip holds" if len(names) == 1 else f"{len(names):,} clips hold"
    return match(clips=len(names), words={"names": listed(names), "held": held}) if names else None


def _loudest(mel_TM: np.ndarray) -> float:
    return float(mel_TM.max()) if mel_TM.size else math.nan


def module_not_finite(facts: Facts) -> Match | None:
    """Gradients of a part of the network were NaN or infinite in logged steps."""
    modules = facts.record.modules
    counts = {name: sum(value > 0 for value in values) for name, values in modules.non_finite.items()} if modules else {}
    worst = sorted((name for name, count in counts.items() if count), key=lambda name: -counts[name])
    if modules is None or not worst:
        return None
    return match(modules=len(worst), lines=counts[worst[0]], of=len(modules.steps), words={"names": listed(worst)})


def _late_norms(facts: Facts) -> dict[str, list[float]]:
    """Finite gradient norms of the later half of the lines, by module; empty where there are too few lines."""
    modules = facts.record.modules
    if modules is None or len(modules.steps) < MODULE_LINES:
        return {}
    first = len(modules.steps) // 2
    return {name: [value for value in values[first:] if math.isfinite(value)] for name, values in modules.gradient_norm.items()}


def frozen(facts: Facts) -> Match | None:
    """A part of the network gets no gradient, or its weights do not move."""
    norms, modules = _late_norms(facts), facts.record.modules
    if modules is None:
        return None
    ratios = {name: [value for value in values[len(values) // 2 :] if math.isfinite(value)] for name, values in modules.update_ratio.items()}
    # A part that no loss term reaches has no norm at all, and neither has one whose gradients are not finite.
    unreached = [name for name, values in norms.items() if not values and not any(count > 0 for count in modules.non_finite[name])]
    still = [
        name for name, values in norms.items() if name in unreached or (values and not any(values)) or (ratios.get(name) and not any(ratios[name]))
    ]
    return match(modules=len(still), of=len(norms), step=modules.steps[-1], words={"names": listed(still)}) if still else None


def vanishing(facts: Facts) -> Match | None:
    """Next to no gradient reaches a part of the network."""
    medians = {name: median(values) for name, values in _late_norms(facts).items() if any(values)}
    typical = median(list(medians.values()))
    faint = sorted((name for name, value in medians.items() if value < VANISHING * typical), key=lambda name: medians[name])
    return match(gradient_norm=medians[faint[0]], typical=typical, modules=len(faint), words={"names": listed(faint)}) if faint else None


def exploding(facts: Facts) -> Match | None:
    """The gradient of a part of the network is far beyond what it usually is."""
    modules, clip = facts.record.modules, facts.record.config.optimiser.clip_norm
    if modules is None or len(modules.steps) < MODULE_LINES:
        return None
    peaks: dict[str, float] = {}
    for name, values in modules.gradient_norm.items():
        usual = median([value for value in values if math.isfinite(value)])
        high = [value for value in values if math.isfinite(value) and value > max(EXPLODING * usual, 10 * clip)]
        if len(high) > 1:
            peaks[name] = max(high)
    worst = sorted(peaks, key=lambda name: -peaks[name])
    return match(gradient_norm=peaks[worst[0]], clip_norm=clip, modules=len(worst), words={"names": listed(worst)}) if worst else None


def _shares(facts: Facts) -> dict[str, float]:
    """Of units that give the same whatever they are given, by part."""
    series = facts.record.validation
    return {name.removeprefix(SATURATION): series.last(name) for name in series.columns if name.startswith(SATURATION)}


def prenet_dead(facts: Facts) -> Match | None:
    """Units of the prenet are never active."""
    share = _shares(facts).get("prenet", math.nan)
    return match(share=share) if share > DEAD_SHARE else None


def saturated(facts: Facts) -> Match | None:
    """Units of other parts are at the end of their range."""
    shares = {name: share for name, share in _shares(facts).items() if name != "prenet" and share > SATURATED_SHARE}
    worst = sorted(shares, key=lambda name: -shares[name])
    return match(share=shares[worst[0]], parts=len(worst), words={"names": listed([name.replace("_", " ") for name in worst])}) if worst else None
