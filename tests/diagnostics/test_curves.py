"""Learning curves: each logged figure is drawn once, and what is not finite is counted."""

import json
import math
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.diagnostics.handmade_run import train, validation, write_anomaly, write_restart, write_run
from tts.config import Config
from tts.config.load import override
from tts.diagnostics.curves import POINTS, charts
from tts.diagnostics.run_record import read_run


def drawn(folder: Path, lines: list[dict[str, Any]], config: Config | None = None, *, anomaly: int | None = None) -> dict[str, Any]:
    run = write_run(folder / "run", config or Config(), lines)
    if anomaly is not None:
        write_anomaly(run, anomaly)
    pictures, undrawn = charts(read_run(run))
    titles = [picture.title for picture in pictures]
    assert len(set(titles)) == len(titles)
    assert not {words.split(":")[0] for words in undrawn} & set(titles)
    return dict(zip(titles, pictures, strict=True)) | {"undrawn": undrawn}


def test_known_and_unknown_columns_are_drawn_and_counters_are_not(tmp_path: Path):
    figures = {"loss": 2.0, "learning_rate": 1e-3, "gradient_norm": 3.0, "consistency_term": 0.5, "seconds": 7.0, "skipped_updates": 0}
    pictures = drawn(tmp_path, [train(1, **figures), validation(1, 1.0)])
    assert pictures.pop("undrawn") == []
    assert list(pictures) == ["Total loss", "Mel loss", "Gate loss", "Learning rate", "Gradient norm", "Consistency term"]
    assert "training 0.500" in pictures["Consistency term"].caption
    assert "clipped to" in pictures["Gradient norm"].svg


def test_nothing_logged_nothing_drawn(tmp_path: Path):
    assert drawn(tmp_path, []) == {"undrawn": []}


def test_values_that_are_not_finite_are_counted_and_the_axis_survives(tmp_path: Path):
    stop = [{"kind": "validation", "step": step, "gate_stop_error": None} for step in (1, 2)]
    pictures = drawn(tmp_path, [train(1, loss=None), train(2, loss=3.0), *stop], anomaly=1)
    assert "Not finite, and so not drawn: 1 values." in pictures["Total loss"].caption
    assert pictures["undrawn"] == ["Stop error: none of its 2 values is finite. It is infinite until the gate opens in every held-out clip."]


def test_a_training_by_absolute_error_says_that_validation_squares(tmp_path: Path):
    lines = [train(1, mel_after=1.0), validation(1, 1.0)]
    assert "held out (squared)" in drawn(tmp_path, lines, override(Config(), {"losses.mel": "l1"}))["Mel loss"].svg
    assert "held out (squared)" not in drawn(tmp_path / "b", lines)["Mel loss"].svg


@pytest.mark.parametrize("values", [(5.0, 5.0), (0.0, 0.0), (-1.0, 2.0), (1e-9, 1e9), (math.pi, None)])
def test_any_range_of_values_is_drawn(tmp_path: Path, values: tuple[float, float | None]):
    assert "training step" in drawn(tmp_path, [train(place + 1, loss=value) for place, value in enumerate(values)])["Total loss"].svg


def test_long_runs_stay_small(tmp_path: Path):
    picture = drawn(tmp_path, [train(step, loss=1 / step) for step in range(1, 20 * POINTS)])["Total loss"]
    assert len(picture.svg) < 60_000


def test_loss_terms_that_belong_together_share_a_chart(tmp_path: Path):
    terms = {"coarse_mel": 1.0, "coarse_gate": 0.1, "consistency": 0.2, "mutual_information": 3.0, "mutual_information_scale": 0.5}
    pictures = drawn(
        tmp_path, [train(1, **terms, data_seconds=0.1, update_seconds=0.2), {**validation(1, 1.0), "activation_saturation_prenet": 0.25}]
    )
    assert "mel 1.00, gate 0.100, consistency 0.200" in pictures["Second decoder"].caption
    assert "share let through 0.500" in pictures["Mutual information"].caption
    assert "prenet 0.250" in pictures["Saturated units"].caption
    assert set(pictures) == {"Mel loss", "Gate loss", "Second decoder", "Mutual information", "Saturated units", "undrawn"}


def test_what_a_restart_abandoned_is_drawn_faint_and_its_step_marked(tmp_path: Path):
    run = write_run(tmp_path / "run", Config(), [train(step, loss=2.0, gate=0.1) for step in (1, 2)])
    write_restart(run, 1, back_to=1, noticed=90, abandoned=[train(2, loss=5.0), train(90, loss=50.0)])
    loss, gate = charts(read_run(run))[0]
    assert loss.svg.count('id="curve"') == 2
    assert gate.svg.count('id="curve"') == 1
    assert loss.svg.count('id="mark"') == gate.svg.count('id="mark"') == 1
    plot = json.loads(unescape(re.search(r'data-plot="(.*?)"', loss.svg)[1]))
    assert plot["x"] == [0, pytest.approx(91.8)]
    assert plot["log"]
    assert 0 < plot["left"] < plot["right"] <= 4.4 * 72
