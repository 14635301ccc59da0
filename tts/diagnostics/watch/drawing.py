"""The live view of a run, as what rich draws."""

import io
import math
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tts.diagnostics.findings import Finding
from tts.diagnostics.findings.course import often
from tts.diagnostics.page import show
from tts.diagnostics.run_record import Series
from tts.diagnostics.watch.glance import Glance, duration, sparkline

COLOURS = {"finished": "green", "running": "cyan", "diverged": "red"}
LEVELS = {"bad": "red", "warning": "yellow", "good": "green"}
SPARK = 24
"""Columns of a sparkline."""
SILENT = 60.0
"""Seconds without news of a run that is said to be under way, after which the view says so."""
LISTED = 3
"""Restarts, and skipped updates, that are listed: the newest."""
SHADES = " ░▒▓█"
ALIGNMENT = (44, 6)
"""Columns and lines of the newest attention."""
BORDERS = 2
"""Lines, and at least columns, of the frame."""
LINES_BESIDE_TRAINING = 20
"""For what is held out, events and the first findings: the figures of training have the room that these leave, two lines at least."""
GAP: tuple[RenderableType, int] = (Text(""), 1)
_RULER = Console(file=io.StringIO())

LOSSES = ("loss", "mel_before", "mel_after", "gate", "guided_attention", "coarse_mel", "coarse_gate", "consistency", "mutual_information")
COURSE = ("gradient_norm", "learning_rate", "frames_per_second")
VALIDATED = {
    "mel_loss": -1, "gate_loss": -1, "attention_diagonality": 1, "attention_focus": 1, "attention_entropy": -1, "gate_accuracy": 1, "gate_on_time": 1,
    "gate_stop_error": -1, "recogniser_error_rate": -1,
}  # fmt: skip
"""1 where more is better, -1 where less is."""


Block = tuple[RenderableType, int]
"""Something to draw, and how many lines it takes."""


def drawing(now: Glance, *, height: int, width: int) -> RenderableType:
    """The view on a terminal of so many lines and columns. What does not fit is left out: the picture, figures of training, the last findings."""
    room = height - BORDERS
    statements = _statements(now.statements, width - 2 * BORDERS)
    blocks: list[Block] = [(_progress(now), 1), GAP]
    for table in (_trained(now, max(2, room - LINES_BESIDE_TRAINING)), _validated(now)):
        blocks += [(table, table.row_count + 1), GAP] if table.row_count else []
    blocks += _events(now)
    needed = sum(size for _, size in [*blocks, *statements])
    picture = _attention(now)
    if picture and needed + ALIGNMENT[1] + 2 <= room:
        blocks += [(picture, ALIGNMENT[1] + 1), GAP]
    title = Text.assemble("run ", (now.name, "bold"), "  ", (now.record.state, COLOURS.get(now.record.state, "yellow")))
    return Panel(Group(*_fitting([*blocks, *statements], room)), title=title, title_align="left", box=box.ROUNDED)


def _fitting(blocks: Sequence[Block], room: int) -> list[RenderableType]:
    """The first of them, as far as the lines go; an ellipsis stands for the others."""
    if sum(size for _, size in blocks) <= room:
        return [part for part, _ in blocks]
    shown: list[RenderableType] = []
    used = 1
    for part, size in blocks:
        if used + size > room:
            break
        shown.append(part)
        used += size
    return [*shown, Text("...", style="dim")]


def _progress(now: Glance) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for _ in range(5):
        grid.add_column(no_wrap=True)
    left = "" if now.seconds_left is None else f"about {duration(now.seconds_left)} left"
    quiet = now.record.state == "running" and now.silent_for > SILENT
    news = Text(f"no news for {duration(now.silent_for)}", style="yellow") if quiet else Text("")
    bar = ProgressBar(total=now.steps, completed=min(now.step, now.steps), width=30)
    grid.add_row(Text("step", style="bold"), bar, f"{now.step:,} of {now.steps:,}", Text(left, style="dim"), news)
    return grid


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, expand=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True, min_width=22)
    for name in columns:
        table.add_column(name, justify="left" if name == "course" else "right", no_wrap=True, min_width=SPARK if name == "course" else 9)
    return table


def _trained(now: Glance, rows: int) -> Table:
    """The first rows of them."""
    series = now.record.train
    table = _table("training", "newest", "course")
    for name in [name for name in (*LOSSES[:1], *COURSE, *LOSSES[1:]) if name in series.columns][:rows]:
        table.add_row(_words(name), show(series.last(name)), Text(sparkline(series.columns[name], SPARK), style="cyan"))
    return table


def _validated(now: Glance) -> Table:
    series = now.record.validation
    table = _table("held out", "newest", "course", "best", "trend")
    for name, better in VALIDATED.items():
        if name in series.columns:
            best = _best(series, name, better)
            table.add_row(
                _words(name),
                show(series.last(name)),
                Text(sparkline(series.columns[name], SPARK), style="cyan"),
                show(best),
                _trend(series, name, better),
            )
    if now.last and math.isfinite(gain := now.last.snapshot.text_gain):
        table.add_row("loss with other texts", show(gain), Text("times that with its own", style="dim"), "", "")
    return table


def _best(series: Series, name: str, better: int) -> float:
    finite = [value for value in series.columns[name] if math.isfinite(value)]
    return (max(finite) if better > 0 else min(finite)) if finite else math.nan


def _trend(series: Series, name: str, better: int) -> Text:
    """The newest value against the one before."""
    values = series.columns[name][-2:]
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return Text("")
    change = values[1] - values[0]
    if abs(change) <= 1e-3 * max(abs(values[0]), 1e-9):
        return Text("→", style="dim")
    return Text("↗" if change > 0 else "↘", style="green" if change * better > 0 else "yellow")


def _events(now: Glance) -> list[Block]:
    """Restarts, skipped updates and smaller batches, a line each; the newest of each kind."""
    record = now.record
    lines = [
        f"restart {item.number}: from step {item.noticed_step:,} back to {item.back_to_step:,} ({item.trigger}), {item.changes}"
        for item in record.restarts[-LISTED:]
    ]
    lines += [f"skipped update at step {item['step']:,}: {item['kind']} {item['name']} is {item['value']}" for item in record.anomalies[-LISTED:]]
    if halvings := int(record.totals.get("frame_budget_halvings", 0)):
        lines.append(f"out of memory: batches were halved {often(halvings)}")
    return [*((Text(line, style="yellow", no_wrap=True, overflow="ellipsis"), 1) for line in lines), GAP] if lines else []


def _attention(now: Glance) -> RenderableType | None:
    """The newest attention of the first held-out utterance: time to the right, text upwards."""
    if now.last is None or now.last.attention_means["invalid"]:
        return None
    snapshot = now.last.snapshot
    weights_SN = snapshot.alignment_BSN[0, : snapshot.step_lengths_B[0], : snapshot.symbol_lengths_B[0]]
    columns, lines = ALIGNMENT
    if min(weights_SN.shape) < 1:
        return None
    cells = [
        [part.max() for part in np.array_split(row, min(lines, row.shape[1]), axis=1)]
        for row in np.array_split(weights_SN, min(columns, len(weights_SN)))
    ]
    rows = ["".join(SHADES[round(float(cell) * (len(SHADES) - 1))] for cell in row) for row in list(zip(*cells, strict=True))[::-1]]
    caption = f"attention on “{snapshot.texts[0]}” at step {snapshot.step:,}"
    shown = [Text(f"│{row}│", style="magenta", no_wrap=True) for row in rows]
    return Group(Text(caption, style="dim", no_wrap=True, overflow="ellipsis"), *shown)


def _statements(found: Sequence[Finding], width: int) -> list[Block]:
    """Findings with the lines that each takes."""
    shown: list[Block] = []
    for finding in found:
        text = Text.assemble(("● ", LEVELS[finding.level]), finding.text)
        if finding.advice:
            text.append(f" {finding.advice}", style="dim")
        shown.append((text, len(text.wrap(_RULER, max(width, 1)))))
    return shown


def _words(name: str) -> str:
    return name.replace("_", " ")
