"""A study under way on the screen: a live view on a terminal, a log line now and then elsewhere.

Whoever runs the workers calls `update` with each Snapshot, at most once a second or so; nothing is drawn in between, and no thread draws.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.logging import RichHandler
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tts.progress import Bars, Lines, Progress, Task
from tts.tuning.report.snapshot import Snapshot, duration, figures, happened, summary

logger = logging.getLogger(__name__)

EVENTS = 6
"""Last events that the view shows."""
WAITS = 3
"""Reasons for which workers wait that the view shows."""
LINES_AROUND = 11
"""Of the view, beside budgets, running trials and events; one of them is the cursor's."""
COLOURS = {"complete": "green", "pruned": "yellow", "fail": "red", "running": "cyan", "waiting": "magenta", "imported": "blue"}


class View(Protocol):
    """Where a study under way is shown."""

    def update(self, now: Snapshot) -> None:
        """Shows the study as it is now."""


@contextmanager
def shown(progress: Progress, first: Snapshot) -> Iterator[View]:
    """The view that goes with a way of showing progress: live beside bars, log lines beside lines, for any other the progress itself."""
    if isinstance(progress, Bars):
        with live(Console(stderr=True)) as view:
            view.update(first)
            yield view
    elif isinstance(progress, Lines):
        yield LogView(progress.every)
    else:
        with progress.task("Trials", total=first.study.budget, done=first.study.finished) as task:
            yield _Plain(task, first.study.finished)


@contextmanager
def live(console: Console) -> Iterator["LiveView"]:
    """A view that is redrawn in place; log lines go above it. The terminal is as it was when the block ends, whatever ends it."""
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as screen, _logging_above(console):
        yield LiveView(screen)


@contextmanager
def _logging_above(console: Console) -> Iterator[None]:
    """Log lines by the console that draws the view: one that knows nothing of it would write into its middle."""
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, RichHandler)]
    consoles = [handler.console for handler in handlers]
    for handler in handlers:
        handler.console = console
    try:
        yield
    finally:
        for handler, before in zip(handlers, consoles, strict=True):
            handler.console = before


class LiveView:
    """The whole picture, redrawn in place."""

    def __init__(self, screen: Live) -> None:
        self._screen = screen
        self._begun = time.monotonic()
        self._before: Snapshot | None = None
        self._events: deque[str] = deque(maxlen=EVENTS)

    def update(self, now: Snapshot) -> None:
        """Draws it."""
        clock = time.strftime("%H:%M:%S")
        self._events.extend(f"{clock}  {event.text}" for event in happened(self._before, now))
        self._before = now
        height = self._screen.console.height
        self._screen.update(drawing(now, seconds=time.monotonic() - self._begun, events=list(self._events), height=height), refresh=True)


class LogView:
    """What is notable, and the state of the study each `every` seconds when it has changed."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._said_at = time.monotonic()
        self._said = ""
        self._before: Snapshot | None = None

    def update(self, now: Snapshot) -> None:
        """Logs it."""
        for event in happened(self._before, now):
            if event.notable:
                logger.info("study %s: %s", now.study.name, event.text)
        self._before = now
        state = f"{now.study.counts} {now.workers}"
        if time.monotonic() - self._said_at >= self._every and state != self._said:
            self._said_at, self._said = time.monotonic(), state
            logger.info("study %s: %s", now.study.name, summary(now))


class _Plain:
    """Finished trials as steps of a task, with a few figures."""

    def __init__(self, task: Task, done: int) -> None:
        self._task, self._done = task, done

    def update(self, now: Snapshot) -> None:
        """Moves on by the trials that were finished since."""
        figures: dict[str, float | str] = {"running": str(len(now.running))}
        if now.study.best and not now.study.several:
            figures["best"] = now.study.best.value
        self._task.advance(now.study.finished - self._done, **figures)
        self._done = now.study.finished


def drawing(now: Snapshot, *, seconds: float, events: Sequence[str], height: int) -> RenderableType:
    """The view, `seconds` after it began, on a terminal of `height` lines: running trials have the room that events leave them, at least half."""
    study = now.study
    waiting = now.waiting[:WAITS]
    room = max(2, height - LINES_AROUND - len(study.budgets) - len(waiting))
    events = events[len(events) - min(len(events), room - min(len(now.running), (room + 1) // 2)) :]
    rows = max(1, room - len(events))
    where = Text(study.storage, style="dim", no_wrap=True, overflow="ellipsis")
    parts: list[RenderableType] = [where, _limits(now), Text(""), _states(now), _best(now)]
    parts += [Text(line, style="yellow", no_wrap=True, overflow="ellipsis") for line in waiting]
    if now.running:
        parts += [Text(""), _running(now, rows)]
    if events:
        parts += [Text(""), *(Text(event, style="dim", no_wrap=True, overflow="ellipsis") for event in events)]
    left = "" if now.seconds_left is None else f", about {duration(now.seconds_left)} left"
    over = f"  {study.spent}" if study.spent else ""
    title = Text.assemble(("study ", "default"), (study.name, "bold"))
    return Panel(
        Group(*parts), title=title, subtitle=Text(f"{duration(seconds)}{left}{over}"), title_align="left", subtitle_align="left", box=box.ROUNDED
    )


def _limits(now: Snapshot) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for limit in now.study.budgets:
        bar = ProgressBar(total=limit.limit, completed=min(limit.used, limit.limit), width=30)
        table.add_row(limit.knob, bar, f"{limit.used:.3g} of {limit.limit:g}")
    return table


def _states(now: Snapshot) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for state, colour in COLOURS.items():
        if number := now.study.counts.get(state):
            text.append(f"{number} {state}   ", style=colour)
    alive = "" if now.workers is None else f"{now.workers} worker{'' if now.workers == 1 else 's'} alive here, "
    with_one = len({trial.worker for trial in now.running})
    return text.append(f"{alive}{with_one} with a trial")


def _best(now: Snapshot) -> Text:
    best = now.study.best
    if best is None:
        return Text("no trial has completed yet", style="dim")
    text = Text.assemble(
        ("best ", "default"), (figures(now.study, best.values), "bold green"), f"  trial {best.number}  ", (_params(best.params), "dim")
    )
    if now.study.several:
        text.append(f"  Pareto set: {', '.join(map(str, now.study.pareto))}")
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _running(now: Snapshot, rows: int) -> Table:
    table = Table(box=None, pad_edge=False, expand=True, header_style="bold")
    for name in ("trial", "worker", "step", "last value"):
        table.add_column(name, justify="left" if name == "worker" else "right", no_wrap=True)
    table.add_column("values", no_wrap=True, overflow="ellipsis", ratio=1)
    for trial in now.running[:rows]:
        again = f" ({len(trial.interruptions) + 1}. attempt)" if trial.interruptions else ""
        value = "-" if trial.last_value is None else f"{trial.last_value:.5g}"
        shown = Text(_params(trial.params), style="dim")
        table.add_row(str(trial.number), trial.short_worker, f"{trial.step}/{now.study.steps}{again}", value, shown)
    if len(now.running) > rows:
        table.add_row("...", f"{len(now.running) - rows} more", "", "", "")
    return table


def _params(params: Mapping[str, object]) -> str:
    """Values beside short names; two knobs of one last word keep their full ones."""
    last = [name.split(".")[-1] for name in params]
    short = {name: word if last.count(word) == 1 and word != "weight" else name for name, word in zip(params, last, strict=True)}
    return "  ".join(f"{short[name]} {value:.3g}" if isinstance(value, float) else f"{short[name]} {value}" for name, value in params.items())
