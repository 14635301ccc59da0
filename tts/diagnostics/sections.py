"""The parts of a report that tell of a training run."""

import math
from collections.abc import Sequence

from tts.diagnostics.curves import charts
from tts.diagnostics.figures import HALF, WHOLE
from tts.diagnostics.findings import Finding
from tts.diagnostics.images import alignment_picture, alignment_strip, colour_range, gate_picture, mel_picture, seconds
from tts.diagnostics.measured import Measured
from tts.diagnostics.page import Cell, Fact, Facts, Note, Picture, Pictures, Section, Table, show, show_seconds
from tts.diagnostics.run_record import Floats, RunRecord
from tts.diagnostics.text_picture import text_gain_picture

STRIP = 7
"""Alignments shown side by side over the course of training."""

ANOMALIES_LISTED = 50

_NO_SNAPSHOT = "The run has not validated yet, so there is no alignment to show: the first is kept at training.validation_interval steps."


def overview(record: RunRecord, statements: Sequence[Finding]) -> Section:
    """What a reader should know first."""
    best = record.validation.lowest("mel_loss")
    facts = (
        Fact("State", record.state, tone="good" if record.state == "finished" else "warning"),
        Fact("Steps", f"{record.step:,}", f"of {record.config.training.steps:,}"),
        Fact("Training time", show_seconds(record.totals.get("seconds", 0.0))),
        Fact("Lowest held-out mel loss", show(best[1]) if best else "none yet", f"step {best[0]:,}" if best else ""),
        Fact("Skipped updates", f"{record.totals.get('skipped_updates', 0):,.0f}", tone="bad" if record.totals.get("skipped_updates") else ""),
    )
    return Section("overview", "Findings", blocks=(Facts(facts), *(Note(finding.text, finding.level, finding.advice) for finding in statements)))


def training(record: RunRecord) -> Section:
    """Learning curves."""
    pictures, undrawn = charts(record)
    if not pictures and not undrawn:
        return Section("training", "Training", absent=f"The run ({record.state}) has logged no step yet, so there is no curve to draw.")
    intro = "Every figure that training logged, over its steps. Held-out clips are never trained on."
    marks = " Thin vertical lines mark skipped updates." if record.anomalies else ""
    if record.restarts:
        marks += " Broken vertical lines mark the steps that restarts went back to; what they abandoned is drawn faint."
    notes = tuple(Note(words, "warning") for words in undrawn)
    return Section("training", "Training", intro + marks, (Pictures(tuple(pictures), 3), *notes) if pictures else notes)


def alignments(measured: Sequence[Measured], record: RunRecord) -> Section:
    """How attention formed, and how it ended."""
    if not measured:
        return Section("alignments", "Alignments", absent=_NO_SNAPSHOT)
    last = measured[-1].snapshot
    chosen = _spread(measured, STRIP)
    strip = alignment_strip([(item.snapshot.step, _alignment(item, 0)) for item in chosen], size=WHOLE)
    finals = tuple(
        Picture(
            alignment_picture(_alignment(measured[-1], row), last.texts[row], _duration(measured[-1], row, record)),
            f"“{last.texts[row]}”",
            f"{last.ids[row]} at step {last.step:,}",
        )
        for row in range(len(last.ids))
    )
    caption = (
        f"Measures at step {last.step:,}. Entropy: 0 is sharp, 1 is blur. Focus, diagonality, coverage, monotonicity, end reached: 1 is best. "
        "NaN: the alignment is no attention."
    )
    table = measures_table(last.ids, measured[-1].attention, measured[-1].attention_means, caption)
    intro = (
        "Which symbol each decoder step reads, for held-out clips under teacher forcing. A voice that reads its text shows one bright line from the "
        "lower left to the upper right."
    )
    first = Picture(strip, f"“{last.texts[0]}” (clip {last.ids[0]}); brighter is more attention, from 0 to 1.", "In the course of training")
    return Section("alignments", "Alignments", intro, (Pictures((first,)), Pictures((*finals, *text_gain_picture(measured)), 2), table))


def gates(measured: Sequence[Measured], record: RunRecord) -> Section:
    """Where the stop gate opens."""
    if not measured:
        return Section("gates", "Stop gates", absent=_NO_SNAPSHOT)
    last = measured[-1].snapshot
    pictures = tuple(
        Picture(
            gate_picture(
                last.gate_BT[row, : last.step_lengths_B[row] * last.reduction_factor],
                record.config.audio,
                size=HALF,
                true_frames=int(last.mel_lengths_B[row]),
            ),
            _gate_words(measured[-1].gate[row]),
            f"{last.ids[row]} at step {last.step:,}",
        )
        for row in range(len(last.ids))
    )
    intro = (
        "The gate should stay shut until the last frame of the recording and open there. Teacher-forced; frames of the last decoder step are shown."
    )
    caption = f"Measures at step {last.step:,}. The stop error is infinite where the gate does not open."
    table = measures_table(last.ids, measured[-1].gate, measured[-1].gate_means, caption)
    return Section("gates", "Stop gates", intro, (Pictures(pictures, 2), table))


def predictions(measured: Sequence[Measured], record: RunRecord) -> Section:
    """Recorded against predicted mel of the first snapshot utterance."""
    if not measured:
        return Section("predictions", "Predicted mel", absent=_NO_SNAPSHOT)
    last, audio = measured[-1].snapshot, record.config.audio
    frames = int(last.mel_lengths_B[0])
    target_TM, predicted_TM = last.mel_target_BTM[0, :frames], last.mel_BTM[0, :frames]
    low, high = colour_range(target_TM)
    pictures = tuple(
        Picture(mel_picture(mel_TM, audio, size=HALF, frames=frames, low=low, high=high), "Both on one colour scale.", f"{last.ids[0]}, {name}")
        for name, mel_TM in (("recorded", target_TM), (f"predicted at step {last.step:,}, teacher-forced", predicted_TM))
    )
    return Section("predictions", "Predicted mel", "What the network makes of a recording whose past frames it is shown.", (Pictures(pictures, 2),))


def anomalies(record: RunRecord) -> Section:
    """Skipped updates."""
    if not record.anomalies:
        return Section("anomalies", "Skipped updates", absent="None: every update of this run was finite.")
    rows = tuple(
        (f"{item['step']:,}", str(item["kind"]), str(item["name"]), str(item["value"]), ", ".join(item["utterances"][:6]))
        for item in record.anomalies[:ANOMALIES_LISTED]
    )
    caption = f"The first {len(rows)} of {len(record.anomalies)}." if len(rows) < len(record.anomalies) else ""
    columns = ("step", "where", "first offender", "value", "utterances")
    intro = "Updates that would have carried a value that is not finite into the weights. They were left out."
    return Section("anomalies", "Skipped updates", intro, (Table(columns, rows, frozenset({"step"}), caption),))


def measures_table(names: Sequence[str], rows: Sequence[dict[str, float]], means: dict[str, float], caption: str) -> Table:
    """Measures of utterances, and their means below."""
    columns = tuple(name.replace("_", " ") for name in means if name != "invalid")
    listed: tuple[tuple[str | Cell, ...], ...] = tuple(
        (name, *(_cell(measure, value) for measure, value in row.items())) for name, row in zip(names, rows, strict=True)
    )
    last: tuple[str | Cell, ...] = ("mean", *(_cell(name, value) for name, value in means.items() if name != "invalid"))
    return Table(("clip", *columns), (*listed, last), frozenset(columns), caption)


def _cell(name: str, value: float) -> Cell:
    bad = not math.isfinite(value) or (name in {"stopped", "end_reached", "end_reached_before_stop"} and value < 1)
    whole = name in {"stopped", "end_reached", "end_reached_before_stop", "repetitions", "skips", "stop_error_frames"} and value.is_integer()
    return Cell(show(int(value) if whole else value), "bad" if bad else "")


def _gate_words(gate: dict[str, float]) -> str:
    if math.isnan(gate["stopped"]):
        return "The gate holds values that are no probabilities."
    if not gate["stopped"]:
        return "The gate does not open within the recording."
    early = int(gate["stop_error_frames"])
    return (
        "The gate opens at the true last frame." if not early else f"The gate opens {early} frame{'s' if early > 1 else ''} before the true last one."
    )


def _alignment(item: Measured, row: int) -> Floats:
    snapshot = item.snapshot
    return snapshot.alignment_BSN[row, : snapshot.step_lengths_B[row], : snapshot.symbol_lengths_B[row]]


def _duration(item: Measured, row: int, record: RunRecord) -> float:
    return seconds(int(item.snapshot.step_lengths_B[row]) * item.snapshot.reduction_factor, record.config.audio)


def _spread(measured: Sequence[Measured], count: int) -> list[Measured]:
    """At most `count`, evenly over the course, first and last included."""
    if len(measured) <= count:
        return list(measured)
    return [measured[round(place * (len(measured) - 1) / (count - 1))] for place in range(count)]
