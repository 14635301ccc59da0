"""`study.html`: what was searched and found, when each trial ran, and what failed, on one page."""

from pathlib import Path

from matplotlib.ticker import MaxNLocator

from tts.diagnostics.figures import COLOURS, WHOLE, sketch
from tts.diagnostics.page import Block, Page, Picture, Pictures, Section, Table, render
from tts.evaluation.study_section import study_section
from tts.storage import write_text
from tts.tuning.results import StudyRecord

STATES = {"complete": COLOURS[0], "pruned": COLOURS[4], "fail": COLOURS[1], "running": COLOURS[2], "waiting": "#888888"}
"""Colour of each state."""


def write_page(folder: Path, results: StudyRecord) -> None:
    """Writes study.html; study.json is there. Raises CannotWriteError."""
    write_text(folder / "study.html", render(study_page(folder, results)))


def study_page(folder: Path, results: StudyRecord) -> Page:
    """The page."""
    words = ", ".join(f"{number} {state}" for state, number in sorted(results.counts.items()))
    subtitle = f"{len(results.trials)} trials ({words}) of {results.budget} asked for"
    footer = (f"Features {results.features}; database {results.storage}",)
    return Page("Hyperparameter study", f"{results.name}: {subtitle}", (study_section(folder), _timeline(results), _failures(results)), footer=footer)


def _timeline(results: StudyRecord) -> Section:
    begun = [(trial, trial.start) for trial in results.trials if trial.start]
    if not begun:
        return Section("timeline", "Timeline", absent="No trial has begun.")
    zero = min(start for _, start in begun)
    latest = max(trial.end or start for trial, start in begun)
    with sketch(WHOLE, "When each trial ran") as picture:
        axes = picture.axes("seconds since the first trial began", "trial")
        for trial, start in begun:
            end = trial.end or latest
            axes.barh(trial.number, (end - start).total_seconds(), left=(start - zero).total_seconds(), height=0.7, color=STATES[trial.state])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    caption = "Blue complete, orange pruned, vermilion failed, green running. Of a trial that was interrupted, its last attempt."
    return Section("timeline", "Timeline", blocks=(Pictures((Picture(picture.svg, caption),)),))


def _failures(results: StudyRecord) -> Section:
    failed = [trial for trial in results.trials if trial.state == "fail"]
    interrupted = [trial for trial in results.trials if trial.interruptions]
    if not failed and not interrupted:
        return Section("failures", "Failures", absent="No trial failed or was interrupted.")
    blocks: list[Block] = []
    if failed:
        rows = tuple((str(trial.number), trial.reason, trial.log.splitlines()[-1] if trial.log else "") for trial in failed)
        columns = ("trial", "reason", "last line of its log")
        blocks.append(
            Table(columns, rows, frozenset(("trial",)), "A failed trial has no value and is never the best. study.json has more of the logs.")
        )
    if interrupted:
        taken = tuple((str(trial.number), "; ".join(trial.interruptions)) for trial in interrupted)
        blocks.append(Table(("trial", "interrupted by"), taken, frozenset(("trial",)), "Trials that went on from their checkpoints."))
    return Section("failures", "Failures", blocks=tuple(blocks))
