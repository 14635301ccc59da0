"""`tts watch`: a run under way in the terminal."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import tyro

from tts.cli.parse import Command
from tts.errors import DataError, TrainingDivergedError

if TYPE_CHECKING:
    from rich.console import Console

    from tts.diagnostics.watch.glance import Glance
    from tts.diagnostics.watch.place import Place, Signature

PATIENCE = 3
"""Looks in a row that may find a file damaged, as it may look while it is written over, before that is an error."""
EVERY = 10.0
"""Seconds between lines where there is no terminal."""


def watch(
    run: Annotated[str, tyro.conf.arg(metavar="RUN", help="Folder of a training run, or s3://BUCKET/KEY.")],
    *,
    once: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Print one picture and end.", help_behavior_hint="")] = False,
) -> None:
    """Show a training run live: progress, losses, attention, restarts, and what can be done.

    Ends when the run has finished, or with exit code 70 when it has diverged. Where standard output is no terminal it prints lines.
    """
    from rich.console import Console

    from tts.diagnostics.watch.place import watched

    with watched(run) as place:
        console = Console()
        last = _once(place, console) if once else _live(place, console) if sys.stdout.isatty() else _lines(place)
    if last.record.state == "diverged" and not once:
        raise TrainingDivergedError(f"{run}: training diverged at step {last.step:,}; `tts diagnose` shows how, and its findings say what to change")


def _once(place: "Place", console: "Console") -> "Glance":
    from tts.diagnostics.watch.drawing import drawing
    from tts.diagnostics.watch.glance import Watcher

    place.look()
    now = Watcher(place.folder).glance()
    height = console.height if console.is_terminal else 200
    console.print(drawing(now, height=height, width=console.width))
    return now


def _live(place: "Place", console: "Console") -> "Glance":
    from rich.live import Live

    from tts.diagnostics.watch.drawing import drawing

    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as screen:
        # One line is the cursor's.
        return _follow(place, lambda now: screen.update(drawing(now, height=console.height - 1, width=console.width), refresh=True))


def _lines(place: "Place") -> "Glance":
    from tts.diagnostics.watch.glance import happened, summary

    before: list[Glance] = []
    said = [0.0]

    def say(now: "Glance") -> None:
        lines = happened(before[-1] if before else None, now)
        if not lines and time.monotonic() - said[0] >= EVERY and now.step > before[-1].step:
            lines = [summary(now)]
        for line in lines:
            print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
            said[0] = time.monotonic()
        if lines or not before:
            before[:] = [now]

    return _follow(place, say)


def _follow(place: "Place", show: Callable[["Glance"], None]) -> "Glance":
    """Looks again and again until the run has ended. Raises DataError for what is no run, or stays damaged."""
    from tts.diagnostics.watch.glance import Watcher

    watcher = Watcher(place.folder)
    damaged = 0
    seen: Signature | None = None
    now: Glance | None = None
    while True:
        signature = place.look()
        try:
            if signature != seen or now is None:
                now, seen, damaged = watcher.glance(), signature, 0
        except (DataError, FileNotFoundError):
            damaged += 1
            if damaged >= PATIENCE or now is None:
                raise
        # Drawn anew without news, too: how long there was none moves on, and the window may have another size.
        show(watcher.aged(now))
        if now.ended:
            return now
        time.sleep(place.seconds)


COMMANDS = (Command(watch, "watch", taken=(), shown=(), folder=""),)
