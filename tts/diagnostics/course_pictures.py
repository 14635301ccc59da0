"""Pictures of how a run went: gradients and updates by part of the network, and shares of a step's time."""

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.colors import LogNorm, Normalize

from tts.diagnostics.figures import COLOURS, WHOLE, legend_above, sketch, whole_ticks
from tts.diagnostics.findings.course import PHASES
from tts.diagnostics.run_record import Series

COLUMNS = 160
"""Columns of a heat map, at most: neighbouring lines of a longer run as their median."""
DECADES = 8
"""Of a logarithmic colour scale, at most: what is smaller is drawn in its darkest colour."""


def module_heat(steps: Sequence[int], values: Mapping[str, Sequence[float]], label: str, *, log: bool) -> Markup:
    """A row for each module, steps to the right, bright where the value is high; grey where there is none."""
    heights = np.array([values[name] for name in values], dtype=np.float64)
    image = _pooled(heights)
    with sketch((6.6, 0.9 + 0.2 * len(values)), f"{label} of {len(values)} parts of the network over training steps") as picture:
        axes = picture.axes("training step", "")
        axes.grid(visible=False)
        colours = mpl.colormaps["viridis"].with_extremes(bad="#88888855")
        extent = (0, max(1, steps[-1]), len(values) - 0.5, -0.5)
        shown = axes.imshow(np.ma.masked_invalid(image), aspect="auto", extent=extent, cmap=colours, norm=_norm(image, log=log))
        axes.set_yticks(range(len(values)), labels=list(values))
        axes.tick_params(axis="y", length=0, pad=3)
        whole_ticks(axes)
        bar = picture.figure.colorbar(shown, ax=axes, fraction=0.03, pad=0.01)
        bar.outline.set_visible(False)
    return picture.svg


def _norm(image: npt.NDArray[np.float64], *, log: bool) -> Normalize:
    known = image[np.isfinite(image) & (image > 0)] if log else image[np.isfinite(image)]
    if not known.size:
        return Normalize(0, 1)
    low, high = float(known.min()), float(known.max())
    if not log:
        return Normalize(low, max(high, low + 1e-12))
    return LogNorm(max(low, high * 10.0**-DECADES), max(high, low * 1.1), clip=True)


def _pooled(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """At most COLUMNS columns; a column is NaN where none of its lines has a value."""
    groups = np.array_split(np.arange(image.shape[1]), min(COLUMNS, image.shape[1]))
    columns = []
    for group in groups:
        part = image[:, group]
        columns.append([float(np.median(row[np.isfinite(row)])) if np.isfinite(row).any() else math.nan for row in part])
    return np.array(columns, dtype=np.float64).T


def timing_shares(train: Series) -> Markup:
    """Stacked shares of a step's time over the steps."""
    phases = [phase for phase in PHASES if f"{phase}_seconds" in train.columns]
    seconds = np.array([train.columns[f"{phase}_seconds"] for phase in phases], dtype=np.float64)
    measured = np.isfinite(seconds).all(0) & (seconds.sum(0) > 0)
    steps, seconds = np.array(train.steps)[measured], seconds[:, measured]
    with sketch((WHOLE[0], 2.6), "Shares of a step's time over training steps") as picture:
        axes = picture.axes("training step", "share of a step's time")
        if steps.size:
            groups = np.array_split(np.arange(len(steps)), min(COLUMNS, len(steps)))
            means = np.array([seconds[:, group].mean(1) for group in groups]).T
            shares = np.repeat(means / means.sum(0), 2, axis=1)
            # Steps as a staircase, so that a single line is seen as well.
            ends = [float(steps[group[-1]]) for group in groups]
            edges = np.repeat([0.0, *ends], 2)[1:-1]
            axes.stackplot(edges, shares, labels=phases, colors=COLOURS[: len(phases)], linewidth=0, alpha=0.85)
            axes.set_xlim(0, max(1.0, ends[-1]))
        axes.set_ylim(0, 1)
        whole_ticks(axes)
        legend_above(axes)
    return picture.svg
