"""The report in a browser: in an iframe that allows no more than scripts, every picture and sound decodes and no text runs out of its place."""

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import HARNESS, PROBE, run


@pytest.fixture(scope="module", params=["report", "diagnostics"])
def seen(request: pytest.FixtureRequest, browser: str, evaluated: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    from tts.diagnostics.report import diagnose

    folder = tmp_path_factory.mktemp("browser")
    page = evaluated / "report.html" if request.param == "report" else diagnose(trained, folder / "diagnosis").html
    (folder / "probed.html").write_text(page.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    (folder / "harness.html").write_text(HARNESS, encoding="utf-8")
    document = run(browser, folder / "profile", "--window-size=1200,900", "--dump-dom", (folder / "harness.html").as_uri())
    found = re.search(r'<pre id="seen">(.*?)</pre>', document, flags=re.DOTALL)
    assert found, document[:500]
    return {**json.loads(unescape(found[1])), "page": request.param}


def test_every_picture_and_sound_decodes(seen: dict):
    assert seen["drawings"] >= 18
    assert len(seen["decoded"]) >= 10
    assert all(seen["decoded"])
    assert len(seen["sounds"]) == (4 if seen["page"] == "report" else 0)
    assert all(0.05 < seconds < 20 for seconds in seen["sounds"])


def test_no_text_runs_out_of_its_place(seen: dict):
    assert seen["wide"] == []
    assert seen["outside"] == []
    assert seen["small"] == 0
    assert seen["width"] <= seen["room"] == 1200


def test_screenshot_shows_text_and_colour(browser: str, evaluated: Path, tmp_path: Path):
    run(browser, tmp_path / "profile", "--window-size=1200,2400", f"--screenshot={tmp_path / 'page.png'}", (evaluated / "report.html").as_uri())
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    assert pixels.shape[1] == 1200
    # The lower part shows spectrograms and alignments: colours, not only grey text on white.
    colourful = (pixels.max(2) - pixels.min(2)) > 60
    assert colourful[900:].mean() > 0.05
    assert (pixels[:700].max(2) < 80).mean() > 0.005
