"""Conditions on what the voice does with its text: attention, the stop gate, and whether the text matters at all."""

import math
import statistics
from collections.abc import Sequence

from tts.diagnostics.findings.rule import Facts, Match, match
from tts.diagnostics.measured import Measured

EARLY_SHARE = 0.2
"""Share of training.steps that counts as early where no guidance says when attention should have been found."""
SHARP = 0.3
"""Mean of row maxima from which on positions of the maximum mean something."""
STUCK_COVERAGE = 0.5
"""Share of the symbols that are attended, below which a sharp attention counts as stuck."""
JUMPS = 1.0
"""Repetitions, or skips, in an utterance on average from which on they are worth saying."""
GATE_EARLY = 0.1
"""Share of a recording, at its end, that the gate cuts off on average, above which it opens too early."""
NO_TEXT_GAIN = 1.08
"""Held-out recordings are foretold at least this many times worse with texts of others once a voice reads its text. On 160 clips of the demo's corpus
with its preset, means of three snapshots from step 300 on: 1.17, rising to 2.12 at step 700, with their own transcripts; 1.01 at most with those of
any other clips, 1.03 with those of clips of nearly the same length. The mel loss hardly differs: 1.10 against 1.17 at step 700."""
TEXT_VALIDATIONS = 3
"""Newest snapshots that are taken together."""
LEARNED = 0.7
"""Of the first held-out mel loss: what it must have come below before the text can be expected to matter."""


def early(facts: Facts) -> bool:
    """Attention is still being guided, in a run that goes on."""
    config = facts.record.config
    guided = config.guided_attention.hold_steps if config.guided_attention.weight > 0 else math.inf
    return facts.under_way and facts.record.step < min(guided, EARLY_SHARE * config.training.steps)


def _diagonality(facts: Facts) -> tuple[float, float] | None:
    """That of the newest snapshot and the wanted one; None where there is no snapshot, or one that holds no attention."""
    if facts.last is None or facts.last.attention_means["invalid"]:
        return None
    return facts.last.attention_means["diagonality"], facts.record.config.evaluation.min_diagonality


def no_attention(facts: Facts) -> Match | None:
    """A row is not a distribution."""
    invalid = int(facts.last.attention_means["invalid"]) if facts.last else 0
    return match(invalid=invalid, alignments=len(facts.last.attention)) if facts.last and invalid else None


def aligned(facts: Facts) -> Match | None:
    """As it should be."""
    found = _diagonality(facts)
    return _alignment(facts, *found) if found and found[0] >= found[1] else None


def collapsed(facts: Facts) -> Match | None:
    """Attention was found, and lost."""
    knobs, values = facts.record.config.recovery, facts.record.validation.columns.get("attention_diagonality", ())
    finite = [value for value in values if math.isfinite(value)]
    recent = finite[-knobs.collapse_validations :]
    if aligned(facts) or len(finite) <= len(recent) or max(finite) < knobs.aligned_diagonality:
        return None
    if not all(value < knobs.collapse_share * max(finite) for value in recent):
        return None
    return match(best=max(finite), best_step=facts.record.validation.steps[values.index(max(finite))], diagonality=recent[-1], step=facts.record.step)


def forming(facts: Facts) -> Match | None:
    """Too early to tell."""
    found = _diagonality(facts)
    return _alignment(facts, *found) if found and found[0] < found[1] and early(facts) and not collapsed(facts) else None


def unaligned(facts: Facts) -> Match | None:
    """Attention was never found."""
    found = _diagonality(facts)
    if found is None or found[0] >= found[1] or early(facts) or collapsed(facts):
        return None
    return _alignment(facts, *found)


def _alignment(facts: Facts, value: float, wanted: float) -> Match:
    return match(diagonality=value, wanted=wanted, step=facts.last.snapshot.step if facts.last else 0)


def _sharp(facts: Facts) -> Measured | None:
    """The newest snapshot, where its attention's maxima mean something."""
    return facts.last if facts.last and facts.last.attention_means["focus"] >= SHARP else None


def stuck(facts: Facts) -> Match | None:
    """A sharp attention that stays at few symbols."""
    last = _sharp(facts)
    if last is None or last.attention_means["coverage"] >= STUCK_COVERAGE:
        return None
    return match(coverage=last.attention_means["coverage"], focus=last.attention_means["focus"], step=last.snapshot.step)


def repeating(facts: Facts) -> Match | None:
    """Jumps back."""
    return _jumping(facts, "repetitions")


def skipping(facts: Facts) -> Match | None:
    """Jumps forward."""
    return _jumping(facts, "skips")


def _jumping(facts: Facts, name: str) -> Match | None:
    last = _sharp(facts)
    if last is None or early(facts) or last.attention_means[name] < JUMPS:
        return None
    return Match({name: last.attention_means[name], "utterances": len(last.attention), "step": last.snapshot.step}, {})


def text_ignored(facts: Facts) -> Match | None:
    """The texts of other recordings serve as well, though attention moves along them and the loss has fallen: they do not belong together."""
    config, losses = facts.record.config, facts.record.validation.columns.get("mel_loss", ())
    gains = _text_gains(facts)
    guided = config.guided_attention.hold_steps if config.guided_attention.weight > 0 else config.training.steps / 2
    if facts.record.step < guided or len(gains) < TEXT_VALIDATIONS or not aligned(facts):
        return None
    gain = statistics.mean(gains[-TEXT_VALIDATIONS:])
    if gain >= NO_TEXT_GAIN or not losses or not losses[-1] < LEARNED * losses[0]:
        return None
    found = _diagonality(facts)
    return match(text_gain=gain, mel_loss=losses[-1], first_mel_loss=losses[0], diagonality=found[0] if found else math.nan)


def text_read(facts: Facts) -> Match | None:
    """As it should be."""
    gains = _text_gains(facts)
    return match(text_gain=gains[-1]) if gains and gains[-1] >= NO_TEXT_GAIN else None


def _text_gains(facts: Facts) -> list[float]:
    measured: Sequence[Measured] = [*facts.earlier, facts.last] if facts.last else facts.earlier
    return [gain for item in measured if math.isfinite(gain := item.snapshot.text_gain)]


def gate_shut(facts: Facts) -> Match | None:
    """It opens nowhere."""
    stopped = _stopped(facts)
    return match(recordings=stopped[1]) if stopped and not stopped[0] and not early(facts) else None


def gate_shut_yet(facts: Facts) -> Match | None:
    """The same, early in training."""
    stopped = _stopped(facts)
    return match(recordings=stopped[1]) if stopped and not stopped[0] and early(facts) else None


def gate_shut_in_some(facts: Facts) -> Match | None:
    """It opens in others."""
    stopped = _stopped(facts)
    return match(shut=stopped[1] - stopped[0], recordings=stopped[1]) if stopped and 0 < stopped[0] < stopped[1] else None


def gate_early(facts: Facts) -> Match | None:
    """It cuts the ends off."""
    found = _cut(facts)
    return match(frames=found[0], share=found[1], recordings=found[2]) if found and found[1] > GATE_EARLY else None


def gate_opens(facts: Facts) -> Match | None:
    """As it should be."""
    stopped, found = _stopped(facts), _cut(facts)
    return match(recordings=stopped[1], frames=found[0]) if stopped and found and stopped[0] == stopped[1] and found[1] <= GATE_EARLY else None


def _stopped(facts: Facts) -> tuple[int, int] | None:
    """Recordings in which the gate opens, and all of them."""
    return (sum(gate["stopped"] == 1 for gate in facts.last.gate), len(facts.last.gate)) if facts.last else None


def _cut(facts: Facts) -> tuple[float, float, int] | None:
    """Frames, and share of the recording, that are cut off on average where the gate opens; and in how many it does."""
    if facts.last is None:
        return None
    lengths = facts.last.snapshot.mel_lengths_B
    opened = [(gate["stop_error_frames"], int(length)) for gate, length in zip(facts.last.gate, lengths, strict=True) if gate["stopped"] == 1]
    if not opened:
        return None
    return sum(frames for frames, _ in opened) / len(opened), sum(frames / length for frames, length in opened) / len(opened), len(opened)
