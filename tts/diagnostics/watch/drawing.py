"""The live view of a run, as what rich draws."""

import math
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Group, RenderableType
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
LINES_AROUND = 6
"""Of the view, beside figures, lists and findings."""

LOSSES = ("loss", "mel_before", "mel_after", "gate", "guided_attention", "coarse_mel", "coarse_gate", "consistency", "mutual_information")
COURSE = ("gradient_norm", "learning_rate", "frames_per_second")
VALIDATED = {
    "mel_loss": -1, "gate_loss": -1, "attention_diagonality": 1, "attention_focus": 1, "attention_entropy": -1, "gate_accuracy": 1,
    "gate_stop_error": -1, "recogniser_error_rate": -1,
}  # fmt: skip
"""1 where more is better, -1 where less is."""


def drawing(now: Glance, *, height: int, width: int) -> RenderableType:
    """The view on a terminal of so many lines and columns: what does not fit is left out from the end of the findings."""
    parts: list[RenderableType] = [_progress(now), Text("")]
    lines = LINES_AROUND
    tables = [(title, table) for title, table in (("training", _trained(now)), ("held out", _validated(now))) if table.row_count]
    for _, table in tables:
        parts += [table, Text("")]
        lines += table.row_count + 2
    events = _events(now)
    parts += events
    lines += len(events)
    picture = _attention(now)
    statements = _statements(now.statements, width - 4)
    needed = sum(size for _, size in statements)
    if picture and lines + needed + ALIGNMENT[1] + 2 <= height:
        parts += [picture, Text("")]
        lines += ALIGNMENT[1] + 2
    for statement, size in statements:
        if lines + size > height:
            parts.append(Text("...", style="dim"))
            break
        parts.append(statement)
        lines += size
    title = Text.assemble("run ", (now.name, "bold"), "  ", (now.record.state, COLOURS.get(now.record.state, "yellow")))
    return Panel(Group(*parts), title=title, title_align="left", box=box.ROUNDED)


def _progress(now: Glance) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
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


def _trained(now: Glance) -> Table:
    series = now.record.train
    table = _table("training", "newest", "course")
    for name in (*LOSSES, *COURSE):
        if name in series.columns:
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


def _events(now: Glance) -> list[RenderableType]:
    """Restarts, skipped updates and smaller batches, a line each; the newest of each kind."""
    record = now.record
    lines = [
        f"restart {item.number}: from step {item.noticed_step:,} back to {item.back_to_step:,} ({item.trigger}), {item.changes}"
        for item in record.restarts[-LISTED:]
    ]
    lines += [f"skipped update at step {item['step']:,}: {item['kind']} {item['name']} is {item['value']}" for item in record.anomalies[-LISTED:]]
    if halvings := int(record.totals.get("frame_budget_halvings", 0)):
        lines.append(f"out of memory: batches were halved {often(halvings)}")
    return [*(Text(line, style="yellow", no_wrap=True, overflow="ellipsis") for line in lines), Text("")] if lines else []


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


def _statements(found: Sequence[Finding], width: int) -> list[tuple[RenderableType, int]]:
    """Findings with the lines that each takes."""
    shown: list[tuple[RenderableType, int]] = []
    for finding in found:
        text = Text.assemble(("● ", LEVELS[finding.level]), finding.text)
        if finding.advice:
            text.append(f" {finding.advice}", style="dim")
        shown.append((text, max(1, math.ceil(text.cell_len * 1.1 / max(width, 20)))))
    return shown


def _words(name: str) -> str:
    return name.replace("_", " ")
