"""What a study went through, in pictures: history, reports, importances, the Pareto front. Trials are as study.json has them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from tts.diagnostics.figures import COLOURS, THIRD, legend_above, scale_for, sketch, whole_ticks
from tts.diagnostics.page import Picture

Trial = Mapping[str, Any]

STATES = {"complete": COLOURS[0], "pruned": COLOURS[4], "fail": COLOURS[1], "running": COLOURS[5], "waiting": "#888888"}
"""Colour of each state, wherever it is drawn."""
BEST = COLOURS[2]
LEGIBLE = 40
"""Lines in one picture above which each is drawn thinner."""


def history(trials: Sequence[Trial]) -> Picture:
    """Each trial's value by its number, and the best of the study's own so far."""
    own = [(trial["number"], trial["value"]) for trial in trials if trial["value"] is not None and not trial.get("imported")]
    taken = [(trial["number"], trial["value"]) for trial in trials if trial["value"] is not None and trial.get("imported")]
    pruned = [point for trial in trials if trial["state"] == "pruned" and (point := _last(trial))]
    failed = [trial["number"] for trial in trials if trial["state"] == "fail"]
    size = 5 if len(trials) <= LEGIBLE else 3
    with sketch(THIRD, "Objective of each trial") as picture:
        axes = picture.axes("trial", "objective, lower is better")
        if own:
            numbers, values = zip(*own, strict=True)
            axes.plot(numbers, values, "o", markersize=size, color=STATES["complete"], label="complete")
            last = max(trial["number"] for trial in trials)
            axes.step([*numbers, last], [*np.minimum.accumulate(values), min(values)], where="post", color=BEST, label="best so far")
        if taken:
            axes.plot(*zip(*taken, strict=True), "o", markersize=size, markerfacecolor="none", color=COLOURS[3], label="imported")
        if pruned:
            axes.plot(*zip(*pruned, strict=True), "x", markersize=size, color=STATES["pruned"], label="pruned")
        if failed:
            low = axes.get_xaxis_transform()
            axes.plot(failed, [0.02] * len(failed), "|", markersize=9, color=STATES["fail"], label="failed", transform=low, clip_on=False)
        axes.set_yscale(scale_for([value for _, value in (*own, *taken, *pruned)]))
        if not (own or taken or pruned):
            axes.set_yticks([])
        axes.set_xlim(-0.5, max(trial["number"] for trial in trials) + 0.5)
        _ticks(axes, [trial["number"] for trial in trials])
        if axes.get_legend_handles_labels()[0]:
            legend_above(axes, 3)
    return Picture(picture.svg, "A pruned trial has no final value: its last report is drawn. Failed ones are marked at the bottom.", "Search")


def reports(trials: Sequence[Trial], best: Trial | None) -> Picture:
    """What each trial reported, over its steps: where pruned ones ended can be seen."""
    lines: dict[str, list[list[tuple[int, float]]]] = {state: [] for state in STATES}
    chosen: list[tuple[int, float]] = []
    for trial in trials:
        points = _points(trial)
        if best is not None and trial["number"] == best["number"]:
            chosen = points
        elif points:
            lines[trial["state"]].append(points)
    many = sum(map(len, lines.values())) > LEGIBLE
    with sketch(THIRD, "Objective over the training steps of each trial") as picture:
        axes = picture.axes("training step", "objective")
        for state, curves in lines.items():
            if curves:
                _draw(axes, curves, STATES[state], label="failed" if state == "fail" else state, faint=many)
        if chosen:
            axes.plot(*zip(*chosen, strict=True), ".-", color=BEST, linewidth=2.4, zorder=4, label="best")
        axes.autoscale_view()
        axes.set_yscale(scale_for([value for trial in trials for _, value in _points(trial)]))
        _ticks(axes, [step for trial in trials for step, _ in _points(trial)])
        if axes.get_legend_handles_labels()[0]:
            legend_above(axes, 3)
        else:
            axes.text(0.5, 0.5, "no trial reported a value", ha="center", transform=axes.transAxes)
            axes.set(xticks=[], yticks=[])
    return Picture(picture.svg, "What each trial reported at its validations; a cross is where a trial was pruned.", "Trials over time")


def importances(shares: Mapping[str, float]) -> Picture:
    """By knob, the largest on top."""
    with sketch(THIRD, "Importance of each knob") as picture:
        axes = picture.axes("share of the importance", "")
        ranked = sorted(shares.items(), key=lambda item: item[1])
        axes.barh([name for name, _ in ranked], [share for _, share in ranked], color=COLOURS[0], height=0.65)
        axes.grid(visible=False, axis="y")
    return Picture(picture.svg, "Which knobs tell good trials from the rest (PED-ANOVA). With few trials a hint, no more.", "Importance")


def fronts(results: Mapping[str, Any]) -> list[Picture]:
    """The completed trials by their objectives, two at a time: each with the first, so that one picture shows two objectives, two show three."""
    names = results["objectives"]
    return [_front(results, 0, other) for other in range(1, len(names))]


def _front(results: Mapping[str, Any], first: int, second: int) -> Picture:
    names, best = results["objectives"], results["best"]
    values = {trial["number"]: trial["values"] for trial in results["trials"] if trial["values"] and not trial.get("imported")}
    front = sorted((values[number] for number in results["pareto"]), key=lambda pair: (pair[first], -pair[second]))
    rest = [pair for number, pair in values.items() if number not in results["pareto"]]
    with sketch(THIRD, f"{names[first]} and {names[second]} of each trial") as picture:
        axes = picture.axes(f"{names[first]}, lower is better", f"{names[second]}, lower is better")
        if rest:
            axes.plot([pair[first] for pair in rest], [pair[second] for pair in rest], "o", markersize=4, color=COLOURS[5], label="others")
        if front:
            x, y = zip(*((values[first], values[second]) for values in front), strict=True)
            axes.plot(x, y, "o", color=COLOURS[0], label="Pareto set")
            if len(names) == 2:
                axes.step(x, y, where="post", color=COLOURS[0])
        if best:
            axes.plot(
                best["values"][first],
                best["values"][second],
                "o",
                markersize=10,
                markerfacecolor="none",
                markeredgewidth=2,
                color=BEST,
                label="chosen",
            )
        if values:
            legend_above(axes, 3)
    return Picture(picture.svg, "No other trial is better than one of the set in all objectives. The chosen one is in best.yaml.", "Pareto set")


def _ticks(axes: Axes, numbers: Sequence[int]) -> None:
    """At whole numbers; where there are few, at these."""
    few = sorted(set(numbers))
    if len(few) <= 3:
        axes.set_xticks(few)
    else:
        whole_ticks(axes)


def _draw(axes: Axes, curves: Sequence[Sequence[tuple[int, float]]], colour: str, *, label: str, faint: bool) -> None:
    width, opacity = (0.7, 0.45) if faint else (1.2, 0.8)
    axes.add_collection(LineCollection(curves, colors=colour, linewidths=width, alpha=opacity, label=label))
    single = [curve[0] for curve in curves if len(curve) == 1]
    if single:
        axes.plot(*zip(*single, strict=True), ".", markersize=4, color=colour)
    if label == "pruned":
        axes.plot(*zip(*(curve[-1] for curve in curves), strict=True), "x", markersize=3 if faint else 5, color=colour)


def _points(trial: Trial) -> list[tuple[int, float]]:
    return [(step, value) for step, value in trial["intermediate"] if value is not None and math.isfinite(value)]


def _last(trial: Trial) -> tuple[int, float] | None:
    """The trial's number and its last report."""
    points = _points(trial)
    return (trial["number"], points[-1][1]) if points else None
