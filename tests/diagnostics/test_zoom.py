"""Curves in a browser: a stretch of steps can be looked at closely, with the mouse and on the keyboard, and all of it comes back."""

import json
import re
from html import unescape

import pytest

from tests.browser import run
from tests.diagnostics.handmade_run import train, validation, write_run
from tts.config import Config
from tts.diagnostics.report import diagnose

PROBE = """
<pre id="seen">nothing</pre>
<script>
addEventListener("load", () => {
  const svg = document.querySelector("svg[data-plot]"), plot = JSON.parse(svg.dataset.plot), matrix = svg.getScreenCTM();
  const path = svg.querySelector("[id^=curve] path[clip-path]");
  const axes = () => getComputedStyle(svg.querySelector("[id^=xtick]")).display !== "none";
  const state = () => ({
    d: path.getAttribute("d"), axes: axes(), ticks: [...svg.querySelectorAll(".ticks text")].map(text => text.textContent),
  });
  const key = name => svg.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
  const mouse = (kind, share) => {
    const place = new DOMPoint(plot.left + share * (plot.right - plot.left), (plot.top + plot.bottom) / 2).matrixTransform(matrix);
    const values = {clientX: place.x, clientY: place.y, button: 0, isPrimary: true, pointerId: 1, bubbles: true};
    svg.dispatchEvent(kind === "dblclick" ? new MouseEvent(kind, values) : new PointerEvent(kind, values));
  };
  svg.setPointerCapture = () => {};
  const seen = {before: state(), focusable: svg.tabIndex === 0, hint: !document.querySelector(".zooming").hidden};
  key("+");
  seen.plus = state();
  key("ArrowRight");
  seen.right = state();
  key("0");
  seen.all = state();
  mouse("pointerdown", 0.5);
  mouse("pointermove", 0.6);
  mouse("pointerup", 0.75);
  seen.dragged = state();
  mouse("dblclick", 0.5);
  seen.reset = state();
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
</script>
"""


@pytest.fixture(scope="module")
def seen(browser: str, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("zoom")
    lines = [train(step, loss=1000 / step) for step in range(10, 1001, 10)]
    page = diagnose(write_run(folder / "run", Config(), [*lines, validation(500, 2.0), validation(1000, 1.0)]), folder / "out").html
    (folder / "probed.html").write_text(page.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    document = run(browser, folder / "profile", "--window-size=1200,900", "--dump-dom", (folder / "probed.html").as_uri())
    found = re.search(r'<pre id="seen">(.*?)</pre>', document, flags=re.DOTALL)
    assert found, document[:500]
    return json.loads(unescape(found[1]))


def numbers(state: dict) -> list[float]:
    return [float(text) for text in re.findall(r"-?[\d.]+", state["d"])]


def test_it_says_how_and_can_be_reached(seen: dict):
    assert seen["focusable"]
    assert seen["hint"]


def test_plus_shows_the_middle_half_and_zero_all(seen: dict):
    assert seen["before"]["axes"]
    assert not seen["plus"]["axes"]
    steps = [int(tick) for tick in seen["plus"]["ticks"] if re.fullmatch(r"\d{3}", tick)]
    assert steps
    assert all(245 <= step <= 775 for step in steps)
    right = [int(tick) for tick in seen["right"]["ticks"] if re.fullmatch(r"\d{3}", tick)]
    assert max(right) > max(steps)
    assert seen["all"]["axes"]
    assert seen["all"]["ticks"] == []
    assert numbers(seen["all"]) == pytest.approx(numbers(seen["before"]), abs=0.02)


def test_a_dragged_stretch_is_shown_and_a_double_click_shows_all(seen: dict):
    steps = [int(tick) for tick in seen["dragged"]["ticks"] if re.fullmatch(r"\d{3}", tick)]
    assert steps
    assert all(505 <= step <= 770 for step in steps), "from half of the axis to three quarters of it, which ends at 1,020"
    assert numbers(seen["reset"]) == pytest.approx(numbers(seen["before"]), abs=0.02)
