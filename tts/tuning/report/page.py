"""`study.html`: what was searched and found, when each trial ran, and what failed, on one page."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from tts.diagnostics.figures import INK, WHOLE, sketch
from tts.diagnostics.page import Block, Listing, Note, Page, Picture, Pictures, Section, Table, render
from tts.evaluation.study_pictures import STATES
from tts.evaluation.study_section import study_section
from tts.storage import write_text
from tts.tuning.report.fleet import FleetRecord
from tts.tuning.report.knob_pictures import knobs_of, parallel, slices
from tts.tuning.report.records import StudyRecord, TrialRecord

LOGS = 40
"""Failed trials whose logs the page shows; those of other reasons come first."""
NUMBERED = 60
"""Bars in the timeline up to which each bears its trial's number."""
NAMED = 24
"""Workers up to which each has its name beside its row."""

_UNITS = ((2 * 86400.0, "days", 86400.0), (2 * 3600.0, "hours", 3600.0), (2 * 60.0, "minutes", 60.0), (0.0, "seconds", 1.0))


def write_page(folder: Path, results: StudyRecord) -> None:
    """Writes study.html; study.json is there. Raises CannotWriteError."""
    write_text(folder / "study.html", render(study_page(folder, results)))


def study_page(folder: Path, results: StudyRecord) -> Page:
    """The page."""
    words = ", ".join(f"{number} {state}" for state, number in sorted(results.counts.items()))
    subtitle = f"{results.name}: {len(results.trials)} trials ({words}) of {results.budget} asked for"
    footer = (f"Features {results.features}; database {results.storage}",)
    sections = (study_section(folder), _knobs(results), _timeline(results), _failures(results))
    return Page("Hyperparameter study", subtitle, sections, footer=footer)


def _knobs(results: StudyRecord) -> Section:
    complete = [trial for trial in results.trials if trial.values]
    if not any(trial.params for trial in results.trials):
        return Section("knobs", "Knobs", absent="No trial has begun, so no knob has a value yet.")
    blocks: list[Block] = [Pictures((parallel(results),))]
    if complete and knobs_of(complete):
        blocks.append(Pictures(tuple(slices(results)), 3))
        imported = " Purple: imported from another study." if any(trial.imported for trial in complete) else ""
        blocks.append(Note(f"Slices: each point is a completed trial, the ring is the best.{imported}"))
    else:
        blocks.append(Note("No trial completed, so there is nothing to set against the knobs.", "bad"))
    return Section("knobs", "Knobs", blocks=tuple(blocks))


@dataclass(frozen=True)
class _Bar:
    """An attempt in the timeline, in seconds since 1970."""

    trial: TrialRecord
    begin: float
    end: float
    row: int


def _timeline(results: StudyRecord) -> Section:
    bars, rows = _bars(results.own)
    if not bars:
        return Section("timeline", "Timeline", absent="No trial has begun.")
    zero, latest = min(bar.begin for bar in bars), max(bar.end for bar in bars)
    unit, seconds = next((name, size) for least, name, size in _UNITS if latest - zero >= least)
    with sketch((WHOLE[0], min(9.0, 1.2 + 0.26 * max(3, len(rows)))), "When each trial ran, and on which worker") as picture:
        axes = picture.axes(f"{unit} since the first trial began", "worker")
        for state, colour in STATES.items():
            drawn = [bar for bar in bars if bar.trial.state == state]
            shapes = [Rectangle(((bar.begin - zero) / seconds, bar.row - 0.36), (bar.end - bar.begin) / seconds, 0.72) for bar in drawn]
            axes.add_collection(PatchCollection(shapes, facecolor=colour, edgecolor=INK, linewidth=0.3))
        for bar in bars if len(bars) <= NUMBERED else ():
            if bar.end - bar.begin > (latest - zero) / 60:
                ink = "white" if bar.trial.state in ("complete", "fail") else "black"
                place = ((bar.begin + bar.end) / 2 - zero) / seconds
                axes.text(place, bar.row, str(bar.trial.number), ha="center", va="center", fontsize=8, color=ink, clip_on=True)
        axes.set_xlim(0, max(latest - zero, 1e-3) / seconds)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        if len(rows) <= NAMED:
            axes.set_yticks(range(len(rows)), rows)
        else:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    caption = (
        "Each attempt at a trial: blue complete, orange pruned, vermilion failed, sky running, grey waiting for another worker. "
        "Attempts that were interrupted have rows of their own."
    )
    return Section("timeline", "Timeline", blocks=(Pictures((Picture(picture.svg, caption),)),))


def _bars(trials: Sequence[TrialRecord]) -> tuple[list[_Bar], list[str]]:
    """Every attempt with its row, and what the rows are called. A trial knows its last worker only: earlier attempts lie below the workers."""
    last = sorted(((spans[-1], trial) for trial in trials if (spans := _spans(trial))), key=lambda pair: (pair[0], pair[1].number))
    workers = {trial.worker: trial.short_worker or "unknown" for _, trial in last}
    rows = {worker: row for row, worker in enumerate(workers)}
    bars = [_Bar(trial, *span, rows[trial.worker]) for span, trial in last]
    free: list[float] = []
    earlier = [(span, trial) for trial in trials for span in _spans(trial)[:-1]]
    for span, trial in sorted(earlier, key=lambda pair: (pair[0], pair[1].number)):
        lane = next((place for place, end in enumerate(free) if end <= span[0]), len(free))
        free[lane:] = [span[1], *free[lane + 1 :]]
        bars.append(_Bar(trial, *span, len(workers) + lane))
    return bars, [*workers.values(), *["interrupted"] * len(free)]


def _spans(trial: TrialRecord) -> list[tuple[float, float]]:
    """Attempts; of a trial that notes none, from its start to its end."""
    if trial.spans:
        return trial.spans
    return [(trial.start.timestamp(), trial.end.timestamp())] if trial.start and trial.end else []


def _failures(results: StudyRecord) -> Section:
    failed = [trial for trial in results.own if trial.state == "fail"]
    interrupted = [trial for trial in results.own if trial.interruptions]
    fleet = results.fleet
    if not failed and not interrupted and not (fleet.ended or fleet.notes or fleet.waits):
        return Section("failures", "Failures", absent="No trial failed or was interrupted, and no worker ended early.")
    blocks: list[Block] = []
    if failed:
        rows = tuple((str(trial.number), trial.reason, trial.log.splitlines()[-1] if trial.log else "") for trial in failed)
        columns = ("trial", "reason", "last line of its log")
        blocks.append(
            Table(columns, rows, frozenset(("trial",)), "A failed trial has no value and is never the best.", foldable=len(rows) > 2 * LOGS)
        )
        shown = _with_logs(failed)
        blocks += [Listing(f"Trial {trial.number}: {trial.reason}", trial.log) for trial in shown]
        if len(shown) < sum(bool(trial.log) for trial in failed):
            blocks.append(Note("The logs of the other failed trials are in study.json."))
    if interrupted:
        taken = tuple((str(trial.number), trial.state, str(len(trial.interruptions)), "; ".join(trial.interruptions)) for trial in interrupted)
        head = ("trial", "state", "interruptions", "why")
        numeric = frozenset(("trial", "interruptions"))
        blocks.append(Table(head, taken, numeric, "Trials that went on from their checkpoints.", foldable=len(taken) > 2 * LOGS))
    return Section("failures", "Failures", blocks=(*blocks, *_fleet(fleet)))


def _fleet(fleet: FleetRecord) -> Iterator[Block]:
    """Workers that ended before the study, and what others waited for."""
    if fleet.ended:
        rows = tuple((_moment(worker.at), worker.worker, worker.reason) for worker in reversed(fleet.ended))
        yield Table(("when (UTC)", "worker", "what happened"), rows, frozenset(), "Workers that ended before the study did, the last ones first.")
        yield from (Listing(f"{worker.worker} {worker.reason}", worker.log) for worker in reversed(fleet.ended) if worker.log)
    if fleet.notes:
        yield Table(("what happened",), tuple((note,) for note in reversed(fleet.notes)), frozenset(), "Workers that were started again.")
    if fleet.waits:
        yield Table(("why",), tuple((line,) for line in fleet.waits), frozenset(), "What workers had to wait for.")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _with_logs(failed: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The failed trials whose logs are shown, by number: of each reason some, so that a frequent one hides no rare one."""
    seen: Counter[str] = Counter()
    ranked = []
    for trial in failed:
        if trial.log:
            ranked.append((seen[trial.reason], trial.number, trial))
            seen[trial.reason] += 1
    chosen = sorted(ranked, key=lambda entry: entry[:2])[:LOGS]
    return sorted((trial for _, _, trial in chosen), key=lambda trial: trial.number)
