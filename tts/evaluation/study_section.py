"""The study that led to a voice, read from `study.json`."""

import json
from pathlib import Path
from typing import Any

from tts.diagnostics.page import Block, Cell, Fact, Facts, Note, Pictures, Section, Table, show, show_seconds
from tts.errors import DataError
from tts.evaluation.study_pictures import fronts, history, importances, reports

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
    several = len(results.get("objectives", ())) > 1
    blocks: list[Block] = [_facts(results)]
    if results.get("spent"):
        blocks.append(Note(f"The study is over: {results['spent']}."))
    if best:
        blocks.append(_best(trials, best))
    else:
        blocks.append(Note("No trial completed, so there are no best values; the reasons are in the table of trials.", "bad"))
    pictures = fronts(results) if several else [history(trials), reports(trials, best)]
    if results["importances"]:
        pictures.append(importances(results["importances"]))
    blocks.append(Pictures(tuple(pictures), min(3, max(2, len(pictures)))))
    if not results["importances"]:
        blocks.append(Note("Too few trials completed to tell how much each knob matters."))
    if several and results["pareto"]:
        blocks.append(_table(results, [trial for trial in trials if trial["number"] in results["pareto"]], "The Pareto set, best in the first first"))
    blocks.append(_table(results, trials, f"All {len(trials)} trials, best first", foldable=True))
    return Section("study", "Study", intro, tuple(blocks))


def _facts(results: dict[str, Any]) -> Facts:
    trials, counts = results["trials"], results["counts"]
    limits = {limit["knob"]: limit for limit in results.get("budgets", [])}
    left = [f"{knob} {limit['used']:.3g} of {limit['limit']:g}" for knob, limit in limits.items() if knob != "trials"]
    interrupted = sum(len(trial["interruptions"]) for trial in trials)
    facts = [
        _best_fact(results),
        Fact("Trials", str(len(trials)), ", ".join(f"{number} {state}" for state, number in counts.items())),
        Fact("Training in trials", show_seconds(sum(trial["seconds"] or 0 for trial in trials if not trial.get("imported"))), "over all workers"),
    ]
    if "trials" in limits:
        facts.append(Fact("Budget", f"{limits['trials']['used']:g} of {limits['trials']['limit']:g}", "; ".join(left) or "finished trials"))
    if interrupted:
        facts.append(Fact("Interruptions", str(interrupted), "trials that went on from their checkpoints"))
    return Facts(tuple(facts))


def _best_fact(results: dict[str, Any]) -> Fact:
    best = results["best"]
    if best is None:
        return Fact("Best objective", "none")
    if len(results.get("objectives", ())) > 1:
        reached = ", ".join(f"{name} {show(value, 4)}" for name, value in zip(results["objectives"], best["values"], strict=True))
        return Fact("Pareto set", f"{len(results['pareto'])} trials", f"chosen: trial {best['number']}, {reached}")
    start = next((trial["value"] for trial in results["trials"] if trial["number"] == 0), None)
    note = f"trial {best['number']}" + (f"; configuration as given: {show(start, 4)}" if start is not None else "")
    return Fact("Best objective", show(best["value"], 4), note, "good" if start is not None and best["value"] < start else "")


def _best(trials: list[dict[str, Any]], best: dict[str, Any]) -> Table:
    start: dict[str, Any] = next((trial["params"] for trial in trials if trial["number"] == 0), {})
    rows = tuple((name, _value(start.get(name)), _value(value)) for name, value in best["params"].items())
    same = " They are the same: no trial did better." if best["number"] == 0 else ""
    return Table(("knob", "as given", "best"), rows, frozenset({"as given", "best"}), f"Searched knobs before and after.{same}")


def _table(results: dict[str, Any], trials: list[dict[str, Any]], caption: str, *, foldable: bool = False) -> Table:
    knobs = list(dict.fromkeys(name for trial in results["trials"] for name in trial["params"]))
    objectives = results["objectives"] if len(results.get("objectives", ())) > 1 else ["objective"]
    columns = ("trial", "state", *objectives, "last step", "seconds", *knobs, "reason")
    rows: tuple[tuple[str | Cell, ...], ...] = tuple(
        (
            str(trial["number"]),
            Cell(f"imported {trial['state']}" if trial.get("imported") else trial["state"], _TONES.get(trial["state"], "quiet")),
            *(show(value, 4) for value in trial.get("values") or [trial["value"]] * len(objectives)),
            f"{trial['intermediate'][-1][0]:,}" if trial["intermediate"] else "-",
            show(trial["seconds"]),
            *(_value(trial["params"].get(name)) for name in knobs),
            f"from study {trial['imported']}" if trial.get("imported") else trial["reason"],
        )
        for trial in sorted(trials, key=lambda trial: (trial["value"] is None, trial["value"] or 0.0, trial["number"]))
    )
    return Table(columns, rows, frozenset(columns) - {"state", "reason"}, caption, foldable=foldable)


def _objective(results: dict[str, Any]) -> str:
    """The sums, each with its name where there are several."""
    names = list(dict.fromkeys(term.get("objective", "") for term in results["objective"]))
    sums = {name: _sum([term for term in results["objective"] if term.get("objective", "") == name]) for name in names}
    return "; ".join(f"{name} = {words}" for name, words in sums.items()) if len(sums) > 1 else sums[names[0]]


def _sum(terms: list[dict[str, Any]]) -> str:
    words = ""
    for term in terms:
        sign = "-" if term["direction"] == "maximise" else "+"
        factor = "" if term["weight"] == 1 else f"{term['weight']:g} "
        scale = "" if term.get("scale", 1) == 1 else f" / {term['scale']:g}"
        words += f" {sign} {factor}{term['metric']}{scale}"
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
