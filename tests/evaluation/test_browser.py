"""The report in a browser: in an iframe that allows no more than scripts, every picture and sound decodes and no text runs out of its place."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROBE = """
<script>
addEventListener("load", async () => {
  const decoded = await Promise.all([...document.querySelectorAll("svg image")].map(element => new Promise(done => {
    const image = new Image();
    image.onload = () => done(image.naturalWidth * image.naturalHeight);
    image.onerror = () => done(0);
    image.src = element.getAttribute("xlink:href") || element.getAttribute("href");
  })));
  const sounds = await Promise.all([...document.querySelectorAll("audio")].map(element => new Promise(done => {
    const sound = new Audio();
    sound.onloadedmetadata = () => done(sound.duration);
    sound.onerror = () => done(0);
    sound.src = element.src;
  })));
  document.querySelectorAll("details").forEach(element => { element.open = true; });
  const wide = [...document.querySelectorAll("h1, h2, h3, p, dt, dd, figcaption, td, th, nav")]
    .filter(element => element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "inline")
    .map(element => element.textContent.slice(0, 60));
  const drawings = [...document.querySelectorAll("figure svg")];
  const outside = drawings.flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text")].filter(text => {
      const box = text.getBoundingClientRect();
      return box.left < frame.left - 3 || box.right > frame.right + 3 || box.top < frame.top - 3 || box.bottom > frame.bottom + 3;
    }).map(text => text.textContent);
  });
  const small = drawings.filter(svg => svg.getBoundingClientRect().width < 250 || svg.getBoundingClientRect().height < 100).length;
  const page = document.documentElement;
  parent.postMessage(JSON.stringify(
    {decoded, sounds, wide, outside, small, drawings: drawings.length, width: page.scrollWidth, room: page.clientWidth}
  ), "*");
});
</script>
"""
HARNESS = """<!DOCTYPE html><title>waiting</title><body style="margin:0"><pre id="seen">nothing came</pre>
<iframe sandbox="allow-scripts" src="probed.html" style="width:1200px;height:900px;border:0"></iframe>
<script>addEventListener("message", event => { document.getElementById("seen").textContent = event.data; });</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("no chromium on PATH: CI must see the report in a browser")
    if found is None:
        pytest.skip("no chromium on PATH: install it to see the report in a browser")
    return found


def run(browser: str, profile: Path, *arguments: str) -> str:
    flags = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run",
        # The clock that waits for decoding stands still for a frame in a process of its own.
        "--disable-features=IsolateSandboxedIframes", "--disable-site-isolation-trials", "--hide-scrollbars", "--mute-audio",
        f"--user-data-dir={profile}", "--virtual-time-budget=30000",
    )  # fmt: skip
    done = subprocess.run([browser, *flags, *arguments], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


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
