"""The study that led to a voice, read from `study.json`."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tts.diagnostics.figures import COLOURS, THIRD, legend_above, sketch, whole_ticks
from tts.diagnostics.page import Block, Cell, Fact, Facts, Note, Picture, Pictures, Section, Table, show, show_seconds
from tts.errors import DataError

_TONES = {"complete": "good", "fail": "bad"}


def study_section(study: Path | None) -> Section:
    """History, best values against those it started from, importances, trials. Raises DataError for a folder without a readable study.json."""
    if study is None:
        return Section("study", "Study", absent="No study was given: this voice was trained with the configuration below, as it was set.")
    results = _read(study / "study.json")
    try:
        return _section(results)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{study / 'study.json'} is not a study's ({type(error).__name__}: {error}); run `tts tune` again") from error


def _section(results: dict[str, Any]) -> Section:
    trials, best = results["trials"], results["best"]
    methods = f"Sampler {results['sampler']}, pruner {results['pruner']}, {results['steps']:,} training steps a trial."
    intro = f"What was minimised: {_objective(results)}, on held-out clips. {methods}"
    if not trials:
        return Section("study", "Study", absent=f"The study {results['name']} has no trial yet.")
    blocks: list[Block] = [_facts(results)]
    if best:
        blocks.append(_best(trials, best))
    else:
        blocks.append(Note("No trial completed, so there are no best values; the reasons are in the table of trials.", "bad"))
    pictures = [_history(trials), _reports(trials, best)]
    if results["importances"]:
        pictures.append(_importances(results["importances"]))
    blocks.append(Pictures(tuple(pictures), 3))
    if not results["importances"]:
        blocks.append(Note("Too few trials completed to tell how much each knob matters."))
    blocks.append(_table(trials))
    return Section("study", "Study", intro, tuple(blocks))


def _facts(results: dict[str, Any]) -> Facts:
    trials, best, counts = results["trials"], results["best"], results["counts"]
    start = next((trial["value"] for trial in trials if trial["number"] == 0), None)
    better = best is not None and start is not None and best["value"] < start
    note = f"trial {best['number']}" + (f"; configuration as given: {show(start, 4)}" if start is not None else "") if best else ""
    return Facts(
        (
            Fact("Best objective", show(best["value"], 4) if best else "none", note, "good" if better else ""),
            Fact("Trials", str(len(trials)), ", ".join(f"{number} {state}" for state, number in counts.items())),
            Fact("Training in trials", show_seconds(sum(trial["seconds"] or 0 for trial in trials)), "over all workers"),
        )
    )


def _best(trials: list[dict[str, Any]], best: dict[str, Any]) -> Table:
    start: dict[str, Any] = next((trial["params"] for trial in trials if trial["number"] == 0), {})
    rows = tuple((name, _value(start.get(name)), _value(value)) for name, value in best["params"].items())
    same = " They are the same: no trial did better." if best["number"] == 0 else ""
    return Table(("knob", "as given", "best"), rows, frozenset({"as given", "best"}), f"Searched knobs before and after.{same}")


def _table(trials: list[dict[str, Any]]) -> Table:
    knobs = list(dict.fromkeys(name for trial in trials for name in trial["params"]))
    columns = ("trial", "state", "objective", "last step", "seconds", *knobs, "reason")
    rows: tuple[tuple[str | Cell, ...], ...] = tuple(
        (
            str(trial["number"]),
            Cell(trial["state"], _TONES.get(trial["state"], "quiet")),
            show(trial["value"], 4),
            f"{trial['intermediate'][-1][0]:,}" if trial["intermediate"] else "-",
            show(trial["seconds"]),
            *(_value(trial["params"].get(name)) for name in knobs),
            trial["reason"],
        )
        for trial in sorted(trials, key=lambda trial: (trial["value"] is None, trial["value"] or 0.0, trial["number"]))
    )
    return Table(columns, rows, frozenset(columns) - {"state", "reason"}, f"All {len(trials)} trials, best first", foldable=True)


def _history(trials: list[dict[str, Any]]) -> Picture:
    complete = [(trial["number"], trial["value"]) for trial in trials if trial["value"] is not None]
    pruned = [(trial["number"], trial["intermediate"][-1][1]) for trial in trials if trial["state"] == "pruned" and trial["intermediate"]]
    failed = [trial["number"] for trial in trials if trial["state"] == "fail"]
    with sketch(THIRD, "Objective of each trial") as picture:
        axes = picture.axes("trial", "objective, lower is better")
        if complete:
            numbers, values = zip(*complete, strict=True)
            axes.plot(numbers, values, "o", markersize=5, color=COLOURS[0], label="complete")
            axes.step([*numbers, len(trials) - 1], [*np.minimum.accumulate(values), min(values)], where="post", color=COLOURS[2], label="best so far")
        if pruned:
            axes.plot(*zip(*pruned, strict=True), "x", markersize=5, color=COLOURS[4], label="pruned")
        for place, number in enumerate(failed):
            axes.axvline(number, color=COLOURS[1], linestyle=":", linewidth=1, label="failed" if place == 0 else None)
        axes.set_xlim(-0.5, len(trials) - 0.5)
        whole_ticks(axes)
        if complete or pruned or failed:
            legend_above(axes)
    return Picture(picture.svg, "A pruned trial has no final value: its last report is drawn.", "Search")


def _reports(trials: list[dict[str, Any]], best: dict[str, Any] | None) -> Picture:
    with sketch(THIRD, "Objective over the training steps of each trial") as picture:
        axes = picture.axes("training step", "objective")
        for trial in trials:
            points = [(step, value) for step, value in trial["intermediate"] if math.isfinite(value)]
            if not points:
                continue
            chosen = best is not None and trial["number"] == best["number"]
            colour = COLOURS[2] if chosen else COLOURS[4] if trial["state"] == "pruned" else COLOURS[0]
            axes.plot(
                *zip(*points, strict=True), ".-", color=colour, linewidth=2.2 if chosen else 1, alpha=1 if chosen else 0.6, zorder=3 if chosen else 2
            )
        whole_ticks(axes)
    return Picture(picture.svg, "What each trial reported: green the best, blue complete, orange pruned.", "Trials over time")


def _importances(importances: dict[str, float]) -> Picture:
    with sketch(THIRD, "Importance of each knob") as picture:
        axes = picture.axes("share of the importance", "")
        ranked = sorted(importances.items(), key=lambda item: item[1])
        axes.barh([name for name, _ in ranked], [share for _, share in ranked], color=COLOURS[0], height=0.65)
        axes.grid(visible=False, axis="y")
    return Picture(picture.svg, "Which knobs tell good trials from the rest (PED-ANOVA). With few trials a hint, no more.", "Importance")


def _objective(results: dict[str, Any]) -> str:
    words = ""
    for term in results["objective"]:
        sign = "-" if term["direction"] == "maximise" else "+"
        factor = "" if term["weight"] == 1 else f"{term['weight']:g} "
        words += f" {sign} {factor}{term['metric']}"
    return words.removeprefix(" + ").strip()


def _value(value: object) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path.parent} holds no study.json; expected a folder made by `tts tune`") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); run `tts tune` again") from error
    if not isinstance(results, dict):
        raise DataError(f"{path} should hold a JSON object, got {type(results).__name__}; run `tts tune` again")
    return results
