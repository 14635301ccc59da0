"""`study.html`: what was searched, what was found, and what failed, on one page."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from tts.diagnostics.figures import COLOURS, HALF, WHOLE, legend_above, scale_for, sketch, whole_ticks
from tts.diagnostics.page import Block, Cell, Fact, Facts, Note, Page, Picture, Pictures, Section, Table, render, show, show_seconds
from tts.storage import write_text
from tts.tuning.objective import Objective
from tts.tuning.results import IMPORTANCE_TRIALS, StudyRecord, TrialRecord

STATES = {"complete": COLOURS[0], "pruned": COLOURS[4], "fail": COLOURS[1], "running": COLOURS[2], "waiting": "#888888"}
"""Colour of each state, in every picture."""
_TONES = {"complete": "good", "fail": "bad"}


def write_page(folder: Path, results: StudyRecord) -> None:
    """Writes study.html. Raises CannotWriteError."""
    write_text(folder / "study.html", render(study_page(results)))


def study_page(results: StudyRecord) -> Page:
    """The page."""
    words = ", ".join(f"{number} {state}" for state, number in sorted(results.counts.items()))
    subtitle = f"{len(results.trials)} trials ({words}); minimises {Objective(results.objective)}; {results.sampler} sampler, {results.pruner} pruner"
    sections = (_found(results), _search(results), _trials(results), _failures(results))
    footer = (f"Features {results.features}; {results.steps:,} training steps a trial; database {results.storage}",)
    return Page(f"Study {results.name}", subtitle, sections, footer=footer)


def _found(results: StudyRecord) -> Section:
    if results.best is None:
        return Section("best", "Best trial", absent="No trial completed; the table of failures below has the reasons.")
    best = results.best
    first = next((trial.value for trial in results.trials if trial.number == 0), None)
    gain = f"the configuration's own values: {show(first, 4)}" if first is not None else "the configuration's own values did not complete"
    seconds = sum(trial.seconds or 0.0 for trial in results.trials)
    facts = Facts((
        Fact("Best objective", show(best.value, 4), gain, "good" if first is not None and best.value < first else ""),
        Fact("Best trial", str(best.number), "0 is the configuration itself"),
        Fact("Finished trials", f"{sum(results.counts.get(state, 0) for state in ('complete', 'pruned', 'fail'))} of {results.budget}"),
        Fact("Time in trials", show_seconds(seconds), "over all workers"),
    ))  # fmt: skip
    start = next((trial.params for trial in results.trials if trial.number == 0), {})
    rows = tuple((name, show_value(start.get(name)), show_value(value)) for name, value in best.params.items())
    table = Table(("knob", "start", "best"), rows, frozenset(("start", "best")), "The searched knobs. best.yaml holds the last column for --config.")
    return Section("best", "Best trial", blocks=(facts, table))


def _search(results: StudyRecord) -> Section:
    if not any(trial.intermediate for trial in results.trials):
        return Section("search", "Search", absent="No trial has reported a validation yet.")
    blocks: list[Block] = [Pictures((_history(results), _curves(results)), 2)]
    if results.importances is None:
        complete = results.counts.get("complete", 0)
        reason = (
            f"need {IMPORTANCE_TRIALS} completed trials, there are {complete}" if complete < IMPORTANCE_TRIALS else "cannot be told from these trials"
        )
        blocks.append(Note(f"Importances of the knobs {reason}."))
        blocks.append(Pictures((_timeline(results),), 1))
    else:
        blocks.append(Pictures((_importances(results.importances), _timeline(results)), 2))
    return Section("search", "Search", blocks=tuple(blocks))


def _trials(results: StudyRecord) -> Section:
    knobs = list(dict.fromkeys(name for trial in results.trials for name in trial.params))
    columns = ("trial", "state", "objective", "last step", "seconds", *knobs, "reason")
    rows: tuple[tuple[str | Cell, ...], ...] = tuple(
        (
            str(trial.number), Cell(trial.state, _TONES.get(trial.state, "quiet")), show(trial.value, 4), _last_step(trial), show(trial.seconds),
            *(show_value(trial.params.get(name)) for name in knobs), trial.reason,
        )
        for trial in sorted(results.trials, key=lambda trial: (trial.value is None, trial.value or 0.0, trial.number))
    )  # fmt: skip
    return Section(
        "trials", "Trials", blocks=(Table(columns, rows, frozenset(columns) - {"state", "reason"}, "Best first; trials.csv has the same."),)
    )


def _failures(results: StudyRecord) -> Section:
    failed = [trial for trial in results.trials if trial.state == "fail"]
    interrupted = [trial for trial in results.trials if trial.interruptions]
    if not failed and not interrupted:
        return Section("failures", "Failures", absent="No trial failed or was interrupted.")
    blocks: list[Block] = []
    if failed:
        rows = tuple((str(trial.number), trial.reason, trial.log.splitlines()[-1] if trial.log else "") for trial in failed)
        blocks.append(
            Table(("trial", "reason", "last line of its log"), rows, frozenset(("trial",)), "A failed trial has no value and is never the best.")
        )
    if interrupted:
        taken = tuple((str(trial.number), "; ".join(trial.interruptions)) for trial in interrupted)
        blocks.append(Table(("trial", "interrupted by"), taken, frozenset(("trial",)), "These went on from their checkpoints."))
    return Section("failures", "Failures", blocks=tuple(blocks))


def _history(results: StudyRecord) -> Picture:
    with sketch(HALF, "Objective of each trial, and the best so far") as picture:
        axes = picture.axes("trial", "objective")
        complete = [(trial.number, trial.value) for trial in results.trials if trial.value is not None]
        pruned = [(trial.number, trial.intermediate[-1][1]) for trial in results.trials if trial.state == "pruned" and trial.intermediate]
        if complete:
            numbers, values = zip(*complete, strict=True)
            axes.plot(numbers, values, "o", markersize=4, color=STATES["complete"], label="complete")
            axes.step(numbers, np.minimum.accumulate(values), where="post", color=STATES["running"], label="best so far")
        if pruned:
            numbers, values = zip(*pruned, strict=True)
            axes.plot(numbers, values, "x", markersize=4, color=STATES["pruned"], label="pruned, last report")
        if complete or pruned:
            legend_above(axes)
        whole_ticks(axes)
    return Picture(picture.svg, "Objective of each trial; lower is better. A pruned trial has no final value: its last report is drawn.")


def _curves(results: StudyRecord) -> Picture:
    with sketch(HALF, "Objective over the steps of each trial") as picture:
        axes = picture.axes("training step", "objective")
        for trial in results.trials:
            best = results.best is not None and trial.number == results.best.number
            steps, values = zip(*trial.intermediate, strict=True) if trial.intermediate else ((), ())
            width, depth = (2.2, 3) if best else (1.0, 2)
            colour = STATES["running"] if best else STATES[trial.state]
            axes.plot(steps, values, ".-", color=colour, linewidth=width, markersize=3, alpha=1 if best else 0.6, zorder=depth)
        every = [value for trial in results.trials for _, value in trial.intermediate]
        axes.set_yscale(scale_for(every))
        whole_ticks(axes)
    return Picture(picture.svg, "What each trial reported on the way: green the best, blue complete, orange pruned, vermilion failed.")


def _importances(importances: dict[str, float]) -> Picture:
    with sketch(HALF, "Importance of each knob") as picture:
        axes = picture.axes("share of the importance", "")
        names = list(importances)[::-1]
        axes.barh(names, [importances[name] for name in names], color=COLOURS[0], height=0.6)
        axes.grid(visible=False, axis="y")
    return Picture(picture.svg, "Which knobs tell good trials from the rest (PED-ANOVA, Watanabe et al. 2023). With few trials a hint, no more.")


def _timeline(results: StudyRecord) -> Picture:
    begun = [trial for trial in results.trials if trial.start]
    zero = min((trial.start for trial in begun if trial.start), default=None)
    latest = max((trial.end or trial.start for trial in begun if trial.start), default=None)
    with sketch(WHOLE if results.importances is None else HALF, "When each trial ran") as picture:
        axes = picture.axes("seconds since the first trial", "trial")
        for trial in begun:
            if trial.start and zero and latest:
                left = (trial.start - zero).total_seconds()
                axes.barh(trial.number, ((trial.end or latest) - trial.start).total_seconds(), left=left, height=0.7, color=STATES[trial.state])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    return Picture(picture.svg, "When each trial ran (its last attempt, if it was interrupted): blue complete, orange pruned, vermilion failed.")


def _last_step(trial: TrialRecord) -> str:
    return f"{trial.intermediate[-1][0]:,}" if trial.intermediate else "-"


def show_value(value: object) -> str:
    """A knob's value for a reader."""
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
