"""A page that needs nothing but itself: sections of blocks, rendered by one template.

A section has blocks or says why it has none. Inside an iframe that allows no more than scripts the page works as it does alone.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True)
class Picture:
    """An inline SVG with a caption."""

    svg: Markup
    caption: str
    title: str = ""


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side, `columns` a row on a wide screen."""

    items: tuple[Picture, ...]
    columns: int = 1
    kind: ClassVar[str] = "pictures"

    @property
    def zooms(self) -> bool:
        """Whether there is a curve that the page's script can zoom into."""
        return any(" data-plot=" in item.svg.split(">", 1)[0] for item in self.items)


@dataclass(frozen=True)
class Cell:
    """A table's cell with a tone: good, bad or quiet."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text; columns named in `numeric` are set flush right. A `foldable` table is shut at first."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    numeric: frozenset[str] = frozenset()
    caption: str = ""
    foldable: bool = False
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Fact:
    """One figure with its name, and what it is measured against."""

    name: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Facts:
    """Figures in a row."""

    items: tuple[Fact, ...]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Note:
    """A sentence with a tone: good, bad, warning or quiet; and what to do about it."""

    text: str
    tone: str = "quiet"
    advice: str = ""
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Listing:
    """Lines of a log, shut at first."""

    title: str
    text: str
    kind: ClassVar[str] = "listing"


@dataclass(frozen=True)
class Take:
    """One recording: a player, or why there is none, above a picture."""

    name: str
    audio: str
    """Data URI; empty where `absent` says why."""
    absent: str
    picture: Picture


@dataclass(frozen=True)
class Comparison:
    """A sentence with its recordings side by side, and pictures below."""

    title: str
    text: str
    facts: tuple[Fact, ...]
    takes: tuple[Take, ...]
    pictures: tuple[Picture, ...] = ()
    kind: ClassVar[str] = "comparison"


Block = Pictures | Table | Facts | Note | Listing | Comparison


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; `absent` says why nothing does."""

    name: str
    """Anchor."""
    title: str
    intro: str = ""
    blocks: tuple[Block, ...] = ()
    absent: str = ""

    def __post_init__(self) -> None:
        if bool(self.blocks) == bool(self.absent):
            raise ValueError(f"section {self.name} needs blocks or the reason why it has none, and not both")


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    badge: Cell | None = None
    footer: tuple[str, ...] = field(default=())

    @property
    def zooms(self) -> bool:
        """Whether it needs the script that zooms into curves; without the script everything is seen at once."""
        return any(isinstance(block, Pictures) and block.zooms for section in self.sections for block in section.blocks)


def render(page: Page) -> str:
    """The page as HTML."""
    return _ENVIRONMENT.get_template("page.html").render(page=page)


def wav_uri(wav: bytes) -> str:
    """A wav file as a data URI."""
    return f"data:audio/wav;base64,{base64.b64encode(wav).decode()}"


def show(value: float | None, digits: int = 3, unit: str = "") -> str:
    """A figure for a reader: `digits` significant ones, and values that are not finite by name."""
    if value is None:
        return "-"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if isinstance(value, int) or value == 0:
        text = f"{value:,.0f}"
    elif 1e-3 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{decimals}f}"
    else:
        text = f"{value:.{digits - 1}e}"
    return f"{text} {unit}".strip()


def show_seconds(seconds: float) -> str:
    """A duration as people say it."""
    if not math.isfinite(seconds) or seconds < 60:
        return show(seconds, 3, "s")
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
