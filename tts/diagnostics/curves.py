"""Learning curves: what each figure of metrics.jsonl did over the steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tts.diagnostics.figures import MARK, THIRD, legend_above, line, mark, scale_for, sketch, whole_ticks
from tts.diagnostics.page import Picture, show
from tts.diagnostics.run_record import RunRecord, Series, read_abandoned, thinned

POINTS = 400
"""A curve of more points than this is drawn as means over neighbours: a reader sees no difference, and the page stays small."""


COUNTERS = ("seconds", "skipped_updates")
"""Sums that only grow; the report gives their total."""

PHASES = ("data_seconds", "forward_seconds", "backward_seconds", "update_seconds")
"""Parts of a step's time, which have a section of their own (timing.py)."""

SATURABLE = ("prenet", "encoder_lstm", "attention_lstm", "decoder_lstm", "postnet")
"""Parts of the network whose units are looked at in validations; those of the prenet are dead, the others at the end of their range."""

RESTART_COLOUR = "#cc79a7"
ANOMALY_COLOUR = "#d55e00"


@dataclass(frozen=True)
class Line:
    """One curve of a chart."""

    kind: Literal["train", "validation"]
    column: str
    label: str


@dataclass(frozen=True)
class Chart:
    """Curves that share axes."""

    title: str
    unit: str
    """Label of the y axis."""
    lines: tuple[Line, ...]
    note: str = ""
    bottom: float | None = None
    """Lower end of the y axis, or below if a value is."""
    top: float | None = None


def charts(record: RunRecord) -> tuple[list[Picture], list[str]]:
    """A picture for each chart that has a line, and for every further column that the run logged; and what could not be drawn, in words."""
    known = _known(record.config.losses.mel)
    drawn = {(line.kind, line.column) for chart in known for line in chart.lines}
    logged = [Line("train", column, "training") for column in record.train.columns]
    logged += [Line("validation", column, "held out") for column in record.validation.columns]
    others = [
        Chart(_words(entry.column).capitalize(), _words(entry.column), (entry,))
        for entry in logged
        if (entry.kind, entry.column) not in drawn and entry.column not in (*COUNTERS, *PHASES)
    ]
    abandoned = [read_abandoned(restart) for restart in record.restarts]
    pictures: list[Picture] = []
    undrawn: list[str] = []
    for chart in [*known, *others]:
        present = [(entry, series) for entry in chart.lines if entry.column in (series := _series(record, entry)).columns]
        if any(math.isfinite(value) for entry, series in present for value in series.columns[entry.column]):
            pictures.append(_picture(record, chart, present, abandoned))
        elif present:
            count = sum(len(series.steps) for _, series in present)
            undrawn.append(f"{chart.title}: none of its {count} values is finite. {chart.note}".rstrip())
    return pictures, undrawn


def _known(mel: str) -> tuple[Chart, ...]:
    distance = {"mse": "squared error", "l1": "absolute error"}[mel]
    # The validation's mel loss is a squared error whatever the training minimises, so that runs can be compared.
    validated = Line("validation", "mel_loss", "held out" if mel == "mse" else "held out (squared)")
    return (
        Chart("Total loss", "weighted sum", (Line("train", "loss", "training"), Line("validation", "loss", "held out"))),
        Chart(
            "Mel loss",
            f"{distance} of log magnitudes",
            (Line("train", "mel_before", "before postnet"), Line("train", "mel_after", "after postnet"), validated),
        ),
        Chart("Gate loss", "cross-entropy, nats", (Line("train", "gate", "training"), Line("validation", "gate_loss", "held out, unweighted"))),
        Chart("Guided attention loss", "attention off the diagonal", (Line("train", "guided_attention", "training"),)),
        Chart(
            "Attention",
            "share, 0 to 1",
            (
                Line("validation", "attention_diagonality", "diagonality"),
                Line("validation", "attention_focus", "focus"),
                Line("validation", "attention_entropy", "entropy"),
            ),
            bottom=0,
            top=1,
        ),
        Chart(
            "Second decoder",
            "loss, unweighted",
            (Line("train", "coarse_mel", "mel"), Line("train", "coarse_gate", "gate"), Line("train", "consistency", "consistency")),
        ),
        Chart(
            "Mutual information",
            "loss; shares",
            (
                Line("train", "mutual_information", "recogniser's loss"),
                Line("train", "mutual_information_scale", "share let through"),
                Line("validation", "recogniser_error_rate", "its errors, held out"),
            ),
        ),
        Chart("Gate accuracy", "share of frames", (Line("validation", "gate_accuracy", "held out"),), bottom=0.95, top=1),
        Chart(
            "Stop error",
            "frames from the true end",
            (Line("validation", "gate_stop_error", "held out"),),
            "It is infinite until the gate opens in every held-out clip.",
            bottom=0,
        ),
        Chart("Learning rate", "Adam's step size", (Line("train", "learning_rate", "training"),)),
        Chart("Gradient norm", "norm before clipping", (Line("train", "gradient_norm", "training"),)),
        Chart(
            "Saturated units",
            "share, 0 to 1",
            tuple(Line("validation", f"activation_saturation_{part}", part.replace("_", " ")) for part in SATURABLE),
            bottom=0,
        ),
        Chart("Speed", "mel frames per second", (Line("train", "frames_per_second", "training"),), bottom=0),
    )


def _picture(record: RunRecord, chart: Chart, present: list[tuple[Line, Series]], abandoned: Sequence[tuple[Series, Series]]) -> Picture:
    with sketch(THIRD, f"{chart.title} over training steps", every_point=True) as picture:
        axes = picture.axes("training step", chart.unit)
        values: list[float] = []
        ends = [1.0]
        for colour, (entry, series) in enumerate(present):
            steps, curve = thinned(series, entry.column, POINTS)
            values += curve
            ends.append(float(series.steps[-1]))
            line(axes, steps, curve, colour, entry.label, marked=entry.kind == "validation" and len(steps) <= 40)
            # The underscore keeps it out of the legend.
            for left in (pair[entry.kind == "validation"] for pair in abandoned if entry.column in pair[entry.kind == "validation"].columns):
                steps, curve = thinned(left, entry.column, POINTS)
                values += curve
                ends.append(float(left.steps[-1]))
                line(axes, steps, curve, colour, f"_{entry.label}", faint=True)
        if any(entry.column == "gradient_norm" for entry, _ in present):
            axes.axhline(record.config.optimiser.clip_norm, color="#888888", linestyle="--", linewidth=1, label="clipped to", gid=MARK)
            values.append(record.config.optimiser.clip_norm)
        for anomaly in record.anomalies:
            mark(axes, anomaly["step"], ANOMALY_COLOUR)
        for restart in record.restarts:
            mark(axes, restart.back_to_step, RESTART_COLOUR, "--")
        _limits(axes, chart, values)
        axes.set_xlim(0, max(ends) * 1.02)
        picture.zoomed = axes
        whole_ticks(axes)
        legend_above(axes, columns=4 if len(present) <= 4 else 3)
    return Picture(picture.svg, _caption(chart, present), chart.title)


def _limits(axes: Axes, chart: Chart, values: Sequence[float]) -> None:
    finite = [value for value in values if math.isfinite(value)]
    low = min(finite) if chart.bottom is None else min(chart.bottom, *finite)
    high = max(finite) if chart.top is None else max(chart.top, *finite)
    margin = 0.04 * (high - low)
    if chart.bottom is None and scale_for(values) == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif margin > 0:
        axes.set_ylim(low - margin, high + margin)


def _caption(chart: Chart, present: list[tuple[Line, Series]]) -> str:
    newest = ", ".join(f"{entry.label} {show(series.last(entry.column))}" for entry, series in present)
    missing = sum(not math.isfinite(value) for entry, series in present for value in series.columns[entry.column])
    gaps = f" Not finite, and so not drawn: {missing} values." if missing else ""
    return f"At the end: {newest}.{gaps}{' ' + chart.note if missing and chart.note else ''}"


def _series(record: RunRecord, entry: Line) -> Series:
    return record.train if entry.kind == "train" else record.validation


def _words(column: str) -> str:
    return column.replace("_", " ")
