"""How every picture looks: SVG inside the page, so that text stays text, takes the page's colours and needs no other file.

Pictures are drawn by matplotlib's object interface: no global state, no window, no backend to choose.
"""

import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK = "#010203"
"""Stands for the page's text colour, in light and in dark; nothing else is drawn in it."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe & Ito's palette, told apart with any colour vision; in the order blue, vermilion, green, purple, orange, sky.

The page's style sheet may lighten them (--colour-0 and so on), as it does on a dark background.
"""

THIRD, HALF, WHOLE = (4.4, 2.9), (6.6, 3.0), (13.2, 3.2)
"""Sizes in inches of pictures that share a row of the page with two others, with one, or with none: their text then comes out alike."""

POINTS_PER_INCH = 72
"""Of an SVG file's unit."""

TALL = (6.6, 3.6)
"""As HALF, for pictures with words along the y axis."""

_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "axes.axisbelow": True,
    "image.interpolation": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "smart-tuner-tts",
    "axes.formatter.useoffset": False,
}


CURVE, MARK = "curve", "mark"
"""Names inside a picture of what the page's script moves when a reader zooms; it fits the other axis to the curves."""


class Sketch:
    """A picture that is being drawn; `svg` holds it once the block that draws it has ended."""

    def __init__(self, size: tuple[float, float], label: str) -> None:
        self.figure = Figure(figsize=size, layout="constrained")
        self.label = label
        self.svg = Markup()
        self.zoomed: Axes | None = None
        """Axes over steps that a reader may zoom into, if any."""

    def axes(self, x: str, y: str) -> Axes:
        """The only axes of a picture, labelled."""
        axes = self.figure.add_subplot()
        axes.set(xlabel=x, ylabel=y)
        return axes


@contextmanager
def sketch(size: tuple[float, float], label: str, *, every_point: bool = False) -> Iterator[Sketch]:
    """A picture of `size` inches; `label` is what a screen reader says.

    Points of a curve that nobody could see are left out, unless it may be zoomed into: `every_point`.
    """
    with mpl.rc_context({**_STYLE, "path.simplify": not every_point}):
        picture = Sketch(size, label)
        yield picture
        file = io.StringIO()
        # Without a date the same figures give the same page.
        picture.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    picture.svg = _inline(file.getvalue(), label, _plot(picture))


def _plot(picture: Sketch) -> str:
    """What the page's script zooms by: where the axes lie in the drawing, in points, and which values their ends stand for."""
    axes = picture.zoomed
    if axes is None:
        return ""
    box, (width, height) = axes.get_position(), picture.figure.get_size_inches() * POINTS_PER_INCH
    place = {"left": box.x0 * width, "right": box.x1 * width, "top": (1 - box.y1) * height, "bottom": (1 - box.y0) * height}
    values = {"x": list(axes.get_xlim()), "y": list(axes.get_ylim()), "log": axes.get_yscale() == "log"}
    plot = json.dumps({name: round(value, 3) for name, value in place.items()} | values)
    return f' data-plot="{escape(plot)}"'


def _inline(document: str, label: str, attributes: str) -> Markup:
    """The <svg> element of an SVG file, sized by the page instead of by itself."""
    element = document[document.index("<svg") :]
    opening, rest = element.split(">", 1)
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening)
    rest = re.sub(r"\s*<metadata>.*?</metadata>", "", rest, flags=re.DOTALL).replace(INK, "currentColor")
    for number, colour in enumerate(COLOURS):
        rest = rest.replace(f": {colour}", f": var(--colour-{number}, {colour})")
    return Markup(f'{opening} role="img" aria-label="{escape(label)}"{attributes}>{rest}')  # noqa: S704  matplotlib wrote it, the rest is escaped


def legend_above(axes: Axes, columns: int = 4) -> None:
    """A legend between the picture's top and the data, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, columnspacing=1.2)


def whole_ticks(axes: Axes) -> None:
    """Ticks of the x axis at whole numbers, for steps and counts."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))


def line(axes: Axes, x: Sequence[float], y: Sequence[float], colour: int, label: str, *, marked: bool = False, faint: bool = False) -> None:
    """A curve; values that are not finite leave a gap. A marked one has a dot at every point, so that a single point is seen."""
    marker = "o" if marked or len(x) == 1 else ""
    alpha, width = (0.55, 1.0) if faint else (1.0, 1.5)
    axes.plot(x, y, color=COLOURS[colour], label=label, marker=marker, markersize=3.5, gid=CURVE, alpha=alpha, linewidth=width)


def mark(axes: Axes, step: float, colour: str, style: str = "-") -> None:
    """A thin vertical line."""
    axes.axvline(step, color=colour, linestyle=style, linewidth=0.8, alpha=0.6, gid=MARK)


def scale_for(values: Sequence[float]) -> str:
    """Logarithmic where positive values span more than a factor of twenty, else linear."""
    finite = [value for value in values if math.isfinite(value)]
    return "log" if finite and min(finite) > 0 and max(finite) > 20 * min(finite) else "linear"


def heat(axes: Axes, image: npt.NDArray[np.floating], *, extent: tuple[float, float, float, float], low: float, high: float, colours: str) -> Any:
    """A matrix, its first row at the bottom, in a colour map that is even in brightness; returns what a colour bar needs."""
    axes.grid(visible=False)
    return axes.imshow(image, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high, cmap=colours)
