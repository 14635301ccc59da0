"""The page: honest sections, escaping, figures for readers."""

import base64
import math

import pytest
from markupsafe import Markup

from tests.diagnostics.html_page import ReadPage
from tts.diagnostics.page import (
    Cell,
    Comparison,
    Fact,
    Facts,
    Note,
    Page,
    Picture,
    Pictures,
    Section,
    Table,
    Take,
    render,
    show,
    show_seconds,
    wav_uri,
)  # fmt: skip

SVG = Markup('<svg viewBox="0 0 1 1" aria-label="picture"></svg>')


def test_a_section_has_data_or_a_reason_and_not_both():
    with pytest.raises(ValueError, match="section x needs"):
        Section("x", "X")
    with pytest.raises(ValueError, match="section x needs"):
        Section("x", "X", blocks=(Note("n"),), absent="none")


def test_every_kind_of_block_is_shown_and_text_is_escaped():
    evil = "<script>alert(1)</script> & “quotes”"
    take = Take("Recorded", "data:audio/wav;base64,AAAA", "", Picture(SVG, evil))
    silent = Take("Generated", "", evil, Picture(SVG, ""))
    blocks = (
        Pictures((Picture(SVG, evil, evil),), 3),
        Table(("a", "b"), ((evil, Cell("1", "bad")),), frozenset({"b"}), evil),
        Table(("a",), (("folded",),), caption=evil, foldable=True),
        Facts((Fact(evil, evil, evil, "good"),)),
        Note(evil, "warning"),
        Comparison(evil, evil, (Fact("f", "1"),), (take, silent), (Picture(SVG, ""),)),
    )
    document = render(Page(evil, evil, [Section("s", evil, evil, blocks), Section("t", "T", absent=evil)], Cell(evil, "good"), (evil,)))
    assert "<script>" not in document
    read = ReadPage(document)
    assert read.pictures["s"] == 4
    assert read.audio == 1
    assert read.tables["s"] == [[evil, "1"], ["folded"]]
    assert read.sections["s"].count(evil) >= 12
    assert evil in read.sections["t"]
    assert read.absent["t"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (math.nan, "NaN"), (math.inf, "∞"), (-math.inf, "-∞"), (0.0, "0"), (12345, "12,345"), (0.98765, "0.988"), (1.0, "1.00"),
        (12.3456, "12.3"), (1234.5, "1,234"), (-2.5, "-2.50"), (0.00001234, "1.23e-05"), (1.5e9, "1.50e+09"), (0.001, "0.00100"),
    ],
)  # fmt: skip
def test_figures_for_readers(value: float | None, text: str):
    assert show(value) == text


def test_units_and_durations():
    assert show(3.0, 2, "dB") == "3.0 dB"
    assert show_seconds(1.5) == "1.50 s"
    assert show_seconds(61.2) == "1 min 1 s"
    assert show_seconds(7320) == "2 h 2 min"
    assert show_seconds(math.nan) == "NaN"


def test_wav_uri_holds_the_bytes():
    assert base64.b64decode(wav_uri(b"RIFFabc").removeprefix("data:audio/wav;base64,")) == b"RIFFabc"
