"""How the searched knobs bear on the objective: parallel coordinates of all trials, and a slice along each knob.

A conditional knob is missing in some trials: their lines pass below its axis, and its slice leaves them out.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from tts.diagnostics.figures import COLOURS, INK, THIRD, WHOLE, scale_for, sketch
from tts.diagnostics.page import Picture
from tts.tuning.report.records import StudyRecord, TrialRecord

MISSING = -0.14
"""Height at which a line passes an axis whose knob its trial did not have; axes reach from 0 to 1."""
BEST = COLOURS[2]
_QUALITY = LinearSegmentedColormap.from_list("quality", ["#08306b", "#2f7fbc", "#a9cce5"])
"""Dark is good: in grey and on a dark page, too, the best lines stand out from the rest."""


class Scale:
    """Where a knob's values lie between 0 and 1: by order for names, on a logarithm where they span more than a factor of twenty."""

    def __init__(self, values: Sequence[Any]) -> None:
        present = [value for value in values if value is not None]
        self.names = _names(present)
        numbers = [] if self.names else [float(value) for value in present]
        self._empty = not present
        self.log = bool(numbers) and scale_for(numbers) == "log"
        self._low, self._high = (self._warp(min(numbers)), self._warp(max(numbers))) if numbers else (0.0, 0.0)

    def place(self, value: Any) -> float:
        """Of a value."""
        if self.names:
            return (self.names.index(str(value)) + 0.5) / len(self.names)
        return 0.5 if self._high == self._low else (self._warp(float(value)) - self._low) / (self._high - self._low)

    @property
    def marks(self) -> list[tuple[float, str]]:
        """Heights with the values there."""
        if self._empty:
            return []
        if self.names:
            return [((place + 0.5) / len(self.names), name) for place, name in enumerate(self.names)]
        heights = (0.5,) if self._high == self._low else (0.0, 0.5, 1.0)
        values = [self._low + height * (self._high - self._low) for height in heights]
        return [(height, f"{10**value if self.log else value:.3g}") for height, value in zip(heights, values, strict=True)]

    def _warp(self, value: float) -> float:
        return math.log10(value) if self.log else value


def knobs_of(trials: Sequence[TrialRecord]) -> list[str]:
    """Searched knobs, in the order in which trials have them."""
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def parallel(results: StudyRecord) -> Picture:
    """A line for each trial over all knobs and the objectives: the better the darker, pruned ones grey."""
    trials = [trial for trial in results.trials if trial.params]
    knobs = knobs_of(trials)
    columns = [[trial.params.get(knob) for trial in trials] for knob in knobs]
    columns += [[trial.values[place] if trial.values else None for trial in trials] for place in range(len(results.objectives))]
    scales = [Scale(column) for column in columns]
    with sketch((WHOLE[0], 4.2), "Values of the knobs of each trial, and what it reached") as picture:
        axes = picture.axes("", "")
        unfinished = [place for place, trial in enumerate(trials) if not trial.values]
        _lines(axes, scales, columns, unfinished, len(knobs), ["#888888"] * len(unfinished), 0.35)
        ranked = sorted((place for place, trial in enumerate(trials) if trial.values), key=lambda place: -trials[place].values[0])
        shades = [_QUALITY(share) for share in np.linspace(1, 0, len(ranked))]
        _lines(axes, scales, columns, ranked, len(scales), shades, 0.85)
        chosen = [place for place in ranked if results.best and trials[place].number == results.best.number]
        _lines(axes, scales, columns, chosen, len(scales), [BEST], 1.0, width=2.6)
        _axes(
            axes,
            scales,
            [*(knob.replace(".", ".\n") for knob in knobs), *(results.objectives if results.several else ["objective"])],
            columns,
            len(knobs),
        )
    caption = (
        "Each line is a trial, from its values to what it reached: green the best, dark blue good ones, pale blue bad ones, grey without a value. "
        "Below an axis: trials in which that knob was not searched."
    )
    return Picture(picture.svg, caption, "Parallel coordinates")


def slices(results: StudyRecord) -> list[Picture]:
    """For each knob, and each objective, the completed trials' values over the knob's."""
    complete = [trial for trial in results.trials if trial.values]
    return [_slice(results, complete, knob, place) for place in range(len(results.objectives)) for knob in knobs_of(complete)]


def _slice(results: StudyRecord, complete: Sequence[TrialRecord], knob: str, objective: int) -> Picture:
    points = [(trial.params[knob], trial.values[objective], trial) for trial in complete if knob in trial.params]
    names = _names([value for value, _, _ in points])
    name = results.objectives[objective] if results.several else "objective"
    size = 18 if len(points) <= 60 else 8
    with sketch(THIRD, f"{name} over {knob}") as picture:
        axes = picture.axes(knob, name)
        x = [names.index(str(value)) if names else float(value) for value, _, _ in points]
        y = [value for _, value, _ in points]
        imported = [bool(trial.imported) for _, _, trial in points]
        for taken, marker in ((False, COLOURS[0]), (True, COLOURS[3])):
            some = [place for place, is_imported in enumerate(imported) if is_imported == taken]
            axes.scatter([x[place] for place in some], [y[place] for place in some], s=size, color=marker, alpha=0.75, linewidths=0)
        for place, (_, _, trial) in enumerate(points):
            if results.best and trial.number == results.best.number:
                axes.plot(x[place], y[place], "o", markersize=9, markerfacecolor="none", markeredgewidth=2, color=BEST)
        _scale_axes(axes, x, y, names)
    return Picture(picture.svg, "", f"{knob}: {name}" if results.several else knob)


def _scale_axes(axes: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[str]) -> None:
    if names:
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
    else:
        axes.set_xscale(scale_for(x))
        _ticks(axes.xaxis, x, 5)
    axes.set_yscale(scale_for(y))
    _ticks(axes.yaxis, y, 6)


def _ticks(axis: Axis, values: Sequence[float], most: int) -> None:
    """Few enough to be told apart: on a logarithm at powers of ten, and at three times those where that leaves too few."""
    if scale_for(values) == "linear":
        axis.set_major_locator(MaxNLocator(nbins=most))
        return
    decades = math.log10(max(values) / min(values))
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0) if decades < 3 else (1.0,), numticks=most + 1))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _lines(
    axes: Axes, scales: Sequence[Scale], columns: Sequence[Sequence[Any]], places: Sequence[int], upto: int, colours: Sequence[Any], alpha: float,
    *, width: float = 1.0,
) -> None:  # fmt: skip
    """Lines of the trials at `places`, over the first `upto` axes."""
    paths = [
        [(axis, MISSING if columns[axis][place] is None else scales[axis].place(columns[axis][place])) for axis in range(upto)] for place in places
    ]
    if paths:
        axes.add_collection(LineCollection(paths, colors=colours, linewidths=width if len(paths) < 100 else 0.7 * width, alpha=alpha))


def _axes(axes: Axes, scales: Sequence[Scale], names: Sequence[str], columns: Sequence[Sequence[Any]], searched: int) -> None:
    """The first `searched` are knobs, the others objectives."""
    for place, scale in enumerate(scales):
        axes.plot([place, place], [0, 1], color=INK, linewidth=0.8)
        for height, mark in scale.marks:
            said = axes.annotate(mark, (place, height), (3, 0), textcoords="offset points", va="center", fontsize=8.5, zorder=5)
            said.set_gid(f"over-lines-{place}-{height:.2f}")  # the page's style gives such text a rim
        if place < searched and any(value is None for value in columns[place]):
            axes.plot(place, MISSING, "_", markersize=9, color=INK)
    axes.set_xticks(range(len(names)), names, fontsize=8.5)
    axes.tick_params(length=0)
    axes.set_xlim(-0.15, len(names) - 1 + 0.45)
    axes.set_ylim(MISSING - 0.06, 1.06)
    axes.yaxis.set_major_locator(NullLocator())
    axes.yaxis.set_major_formatter(NullFormatter())
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _names(values: Sequence[Any]) -> list[str]:
    """The values of a knob of choices, sorted; empty for a number."""
    return sorted({str(value) for value in values}) if any(isinstance(value, str | bool) for value in values) else []
