"""What a reader should know first: statements that follow from a run's figures, each with the figures it rests on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tts.diagnostics.measured import Measured
from tts.diagnostics.page import show
from tts.diagnostics.run_record import RunRecord

OVERFITTING = 1.05
"""Held-out loss at the end above this many times its lowest counts as overfitting."""


@dataclass(frozen=True)
class Finding:
    """One statement."""

    level: Literal["good", "warning", "bad"]
    text: str


def findings(record: RunRecord, last: Measured | None) -> list[Finding]:
    """Bad news first."""
    found = [*_state(record), *_updates(record), *_loss(record), *(_attention(record, last) if last else []), *(_gate(last) if last else [])]
    order: Sequence[str] = ("bad", "warning", "good")
    return sorted(found, key=lambda finding: order.index(finding.level))


def _state(record: RunRecord) -> list[Finding]:
    target = record.config.training.steps
    if record.state == "finished":
        return [Finding("good", f"Training finished all {target:,} steps.")]
    level: Literal["bad", "warning"] = "bad" if record.state == "diverged" else "warning"
    return [Finding(level, f"Training is {record.state} at step {record.step:,} of {target:,}.")]


def _updates(record: RunRecord) -> list[Finding]:
    skipped = int(record.totals.get("skipped_updates", 0))
    if not skipped:
        return [Finding("good", "No update was skipped: loss and gradients stayed finite.")]
    first = f"; the first, at step {record.anomalies[0]['step']:,}, began in {record.anomalies[0]['name']}" if record.anomalies else ""
    return [Finding("bad", f"{skipped:,} updates were skipped because something was not finite{first}.")]


def _loss(record: RunRecord) -> list[Finding]:
    best = record.validation.lowest("mel_loss")
    if best is None:
        return [Finding("warning", "No validation has a finite mel loss yet: nothing can be said about how the voice learns.")]
    step, lowest = best
    first, last = record.validation.columns["mel_loss"][0], record.validation.last("mel_loss")
    if not math.isfinite(last):
        return [Finding("bad", f"The newest held-out mel loss is {show(last)}; the lowest was {show(lowest)} at step {step:,}.")]
    if len(record.validation.steps) > 1 and not last < first:
        return [Finding("bad", f"Held-out mel loss did not fall: {show(first)} at the first validation, {show(last)} at the last.")]
    if last > OVERFITTING * lowest:
        text = f"Held-out mel loss rose from its lowest, {show(lowest)} at step {step:,}, to {show(last)}; the checkpoint of step {step:,} is used."
        return [Finding("warning", text)]
    if len(record.validation.steps) == 1:
        return [Finding("warning", f"There is one validation only (mel loss {show(last)}): no trend can be read.")]
    return [Finding("good", f"Held-out mel loss fell from {show(first)} to {show(last)}; its lowest is {show(lowest)}, at step {step:,}.")]


def _attention(record: RunRecord, last: Measured) -> list[Finding]:
    invalid, value = int(last.attention_means["invalid"]), last.attention_means["diagonality"]
    if invalid:
        return [Finding("bad", f"{invalid} of {len(last.attention)} alignments are no attention at all: a row is not a distribution over the text.")]
    wanted = record.config.evaluation.min_diagonality
    rest = f"{show(value)} of the attention lies near the diagonal, teacher-forced, at step {last.snapshot.step:,} (wanted: {show(wanted)})."
    return [Finding("good" if value >= wanted else "bad", ("Attention is aligned: " if value >= wanted else "Attention is not aligned: ") + rest)]


def _gate(last: Measured) -> list[Finding]:
    stopped, count = sum(gate["stopped"] == 1 for gate in last.gate), len(last.gate)
    if stopped < count:
        level: Literal["bad", "warning"] = "warning" if stopped else "bad"
        return [Finding(level, f"The stop gate never opens within {count - stopped} of {count} recordings, teacher-forced.")]
    return [Finding("good", f"The stop gate opens in all {count} recordings, on average {show(last.gate_means['stop_error_frames'])} frames off.")]
