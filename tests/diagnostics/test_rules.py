"""The table of rules: a run made to fail in each way has that finding, with its evidence and its advice, and a healthy one has none of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.diagnostics.handmade_run import (
    train,
    validation,
    write_anomaly,
    write_corpus,
    write_modules,
    write_restart,
    write_run,
    write_snapshot,
)
from tts.config import Config, knobs
from tts.config.load import override
from tts.diagnostics.findings import RULES, Finding, findings
from tts.diagnostics.measured import measure
from tts.diagnostics.run_record import read_run

PARTS = {"encoder.lstm": (0.5, 1e-3, 0), "decoder.mel": (0.4, 2e-3, 0), "decoder.gate": (0.1, 1e-3, 0)}
"""Gradient norm, update ratio and values that are not finite."""
CONFIG = override(Config(), {"training.steps": 600, "guided_attention.hold_steps": 300, "optimiser.warmup_steps": 10})


def train_lines(steps: int = 60, **columns: Callable[[int], float]) -> list[dict[str, Any]]:
    healthy = {"loss": lambda step: 5 / (1 + step / 100), "gradient_norm": lambda _: 0.8, "learning_rate": lambda _: 1e-3}
    return [train(10 * n, **{name: make(10 * n) for name, make in (healthy | columns).items()}) for n in range(1, steps + 1)]


def validations(*mel_losses: float, **columns: list[float]) -> list[dict[str, Any]]:
    steps = [600 * (n + 1) // len(mel_losses) for n in range(len(mel_losses))]
    return [
        {**validation(step, loss), **{name: values[n] for name, values in columns.items()}}
        for n, (step, loss) in enumerate(zip(steps, mel_losses, strict=True))
    ]


def diagonal(steps: int = 20, symbols: int = 10) -> np.ndarray:
    return np.eye(symbols).repeat(steps // symbols, 0)


def gate(open_from: int, steps: int = 20) -> np.ndarray:
    return (np.arange(steps) >= open_from).astype(float)


def of(
    run: Path,
    *,
    lines: list[dict[str, Any]] | None = None,
    config: Config = CONFIG,
    alignment: np.ndarray | None = None,
    gate_T: np.ndarray | None = None,
    gains: tuple[float | None, ...] = (1.5, 1.6, 1.7),
    parts: dict[int, Any] | None = None,
    **state: Any,
) -> dict[str, Finding]:
    """Findings by code, of a run that is healthy but for what is given."""
    write_run(run, config, train_lines() + validations(4.0, 2.0, 1.5, 1.2) if lines is None else lines, **state)
    alignment = diagonal() if alignment is None else alignment
    gate_T = gate(len(alignment) - 1, len(alignment)) if gate_T is None else gate_T
    paths = [
        write_snapshot(run, 300 + 100 * n, alignment[None], gate_T[None], [len(alignment)], ["abcdefghi"], gain) for n, gain in enumerate(gains, 1)
    ]
    write_modules(run, parts or {10 * n: PARTS for n in range(1, 61)})
    measured = [measure(path) for path in paths]
    found = findings(read_run(run), measured[-1] if measured else None, earlier=measured[:-1])
    assert len({finding.code for finding in found}) == len(found)
    return {finding.code: finding for finding in found}


HEALTHY = {"finished", "no-skipped-updates", "mel-loss-fell", "attention-aligned", "text-read", "gate-opens"}


def test_a_healthy_run_has_good_findings_only(tmp_path: Path):
    found = of(tmp_path / "run")
    assert set(found) == HEALTHY
    assert all(finding.level == "good" and not finding.advice for finding in found.values())
    assert found["text-read"].evidence == {"text_gain": pytest.approx(1.7)}


def test_an_older_run_has_no_more_than_what_its_files_tell(tmp_path: Path):
    found = of(tmp_path / "run", gains=(None, None, None))
    assert set(found) == HEALTHY - {"text-read"}


def test_every_knob_that_is_advised_is_one_and_every_code_is_used_once():
    known = {knob.path for knob in knobs(Config)}
    assert {turn.knob for rule in RULES for turn in rule.turns} <= known
    assert len({rule.code for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert bool(rule.turns or rule.remedy) <= (rule.level != "good"), rule.code


STUCK = np.eye(10)[np.full(20, 1)]
JUMPING_BACK = np.eye(10)[[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9]]
JUMPING_FORWARD = np.eye(10)[[0, 0, 1, 1, 2, 2, 3, 3, 3, 8, 8, 8, 8, 8, 8, 8, 8, 8, 9, 9]]
BLUR = np.full((20, 10), 0.1)
SPIKES = {"loss": lambda step: 9.0 if step % 100 == 0 else 2.0, "gradient_norm": lambda _: 8.0}
COLLAPSE = validations(4.0, 2.0, 1.5, 1.4, attention_diagonality=[0.5, 0.9, 0.3, 0.2])
SLOW_DATA = {
    "data_seconds": lambda _: 0.3,
    "forward_seconds": lambda _: 0.2,
    "backward_seconds": lambda _: 0.4,
    "update_seconds": lambda _: 0.1,
}


def eight(**parts: tuple[float | None, float | None, int]) -> dict[str, Any]:
    """Lines of modules.jsonl in which these parts (`_` for the point) are what is given."""
    return {"parts": {10 * n: PARTS | {name.replace("_", "."): values for name, values in parts.items()} for n in range(1, 9)}}


def after(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return {"lines": train_lines() + lines}


SMALL = (0.5, 1e-7, 0)
RATE = "optimiser.learning_rate"
CASES: list[tuple[str, str, dict[str, Any], dict[str, float], str]] = [
    ("diverged", "bad", {"state": "diverged"}, {"step": 600, "steps": 600}, f"Lower {RATE} or optimiser.clip_norm; what it went back to"),
    ("frame-budget-halved", "warning", {"totals": {"frame_budget_halvings": 2}}, {"halvings": 2, "fitting": 2000}, "Set data.frame_budget to 2000."),
    ("data-slow", "warning", {"lines": train_lines(**SLOW_DATA) + validations(3.0, 1.0)}, {"data_share": 0.3}, "Raise data.frame_budget; keep"),
    ("overfitting", "warning", after(validations(4.0, 1.0, 1.2)), {"lowest": 1.0, "best_step": 400}, "Raise optimiser.weight_decay"),
    ("plateau", "warning", after(validations(4.0, 3.0, 2.0, 1.5, 1.2, *[1.0] * 7)), {"validations": 5}, "Lower optimiser.decay_start"),
    ("learning-rate-too-high", "bad", {"lines": train_lines(**SPIKES) + validations(3.0, 1.0)}, {"spikes": 5, "clipped_share": 1}, f"Lower {RATE}"),
    ("learning-rate-too-low", "warning", eight(decoder_mel=SMALL, decoder_gate=SMALL), {"update_ratio": 1e-7}, f"Raise {RATE}"),
    ("attention-unaligned", "bad", {"alignment": BLUR}, {"diagonality": 0.28, "wanted": 0.6}, "Raise guided_attention.weight, model.red"),
    ("attention-forming", "warning", {"alignment": BLUR, "lines": train_lines(10), "state": "running"}, {"diagonality": 0.28}, ""),
    ("attention-collapsed", "bad", {"alignment": BLUR, **after(COLLAPSE)}, {"best": 0.9, "best_step": 300}, f"Lower {RATE}, or raise guided_att"),
    ("attention-stuck", "bad", {"alignment": STUCK}, {"coverage": 0.1, "focus": 1.0}, "Raise guided_attention.weight or model.reduction_factor; "),
    ("attention-repeats", "warning", {"alignment": JUMPING_BACK}, {"repetitions": 1}, "Raise guided_attention.weight"),
    ("attention-skips", "warning", {"alignment": JUMPING_FORWARD}, {"skips": 1}, "Raise guided_attention.weight or model.coarse_reduction_fac"),
    ("attention-invalid", "bad", {"alignment": np.full((20, 10), np.nan)}, {"invalid": 1}, f"Lower {RATE}"),
    ("text-ignored", "bad", {"gains": (1.01, 0.97, 1.0)}, {"text_gain": 0.993, "mel_loss": 1.2}, "The transcripts are probably swapped"),
    ("gate-shut", "bad", {"gate_T": gate(99)}, {"recordings": 1}, "Raise losses.gate_positive_weight"),
    ("gate-shut-yet", "warning", {"gate_T": gate(99), "lines": train_lines(10), "state": "running"}, {"recordings": 1}, ""),
    ("gate-early", "bad", {"gate_T": gate(10)}, {"frames": 9, "share": 0.45}, "Lower losses.gate_positive_weight, or raise synthesis.gate_thr"),
    ("module-not-finite", "bad", eight(postnet=(None, None, 3)), {"lines": 8, "of": 8}, f"Lower {RATE}"),
    ("module-frozen", "bad", eight(decoder_gate=(0.1, 0.0, 0)), {"modules": 1, "of": 3}, "A weight of 0"),
    ("module-frozen", "bad", eight(decoder_gate=(0.0, None, 0)), {"modules": 1, "of": 3}, "A weight of 0"),
    ("module-frozen", "bad", eight(decoder_gate=(None, None, 0)), {"modules": 1, "of": 3}, "A weight of 0"),
    ("module-vanishing", "warning", eight(embedding=(1e-9, 1e-3, 0)), {"gradient_norm": 1e-9}, f"Lower {RATE}."),
    ("prenet-dead", "warning", after(validations(2.0, 1.0, activation_saturation_prenet=[0.1, 0.6])), {"share": 0.6}, f"Lower {RATE}"),
    ("units-saturated", "warning", after(validations(2.0, 1.0, activation_saturation_postnet=[0.1, 0.9])), {"share": 0.9}, f"Lower {RATE}"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "level", "made", "evidence", "advice"), CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)])
def test_a_run_that_fails_in_one_way_says_so(tmp_path: Path, code: str, level: str, made: dict[str, Any], evidence: dict[str, float], advice: str):
    found = of(tmp_path / "run", **made)
    assert found[code].level == level
    for name, value in evidence.items():
        assert found[code].evidence[name] == pytest.approx(value, rel=2e-2), name
    assert found[code].advice.startswith(advice)
    assert bool(found[code].advice) == bool(advice)
    others = {other for other, finding in found.items() if finding.level == "bad"} - {code}
    follow = {"attention-stuck": {"attention-unaligned"}}
    assert others <= follow.get(code, set()), "one fault, one bad finding"


def test_a_part_whose_gradient_leaps_up(tmp_path: Path):
    found = of(tmp_path / "run", parts={10 * n: PARTS | {"postnet": (500.0 if n > 6 else 0.5, 1e-3, 0)} for n in range(1, 9)})["module-exploding"]
    assert found.evidence == {"gradient_norm": 500, "clip_norm": 1.0, "modules": 1}
    assert found.text == "The gradient of postnet explodes: up to 500, where the whole is clipped to 1.00."


def test_a_gate_that_opens_in_some_recordings(tmp_path: Path):
    run = write_run(tmp_path / "run", CONFIG, train_lines())
    path = write_snapshot(run, 600, np.stack([diagonal()] * 2), np.stack([gate(19), gate(99)]), [20, 20], ["abcdefghi"] * 2)
    found = {finding.code: finding for finding in findings(read_run(run), measure(path))}
    assert found["gate-shut-in-some"].evidence == {"shut": 1, "recordings": 2}


def test_an_utterance_that_breaks_updates_again_and_again_is_named(tmp_path: Path):
    run = write_run(tmp_path / "run", CONFIG, train_lines(), skipped=3)
    for step, utterance in ((3, "clip-7"), (5, "clip-9"), (8, "clip-7")):
        write_anomaly(run, step, utterance)
    found = {finding.code: finding for finding in findings(read_run(run), None)}
    assert found["utterance-not-finite"].evidence == {"skipped_updates": 2, "told_apart": 3, "utterances": 1}
    assert found["utterance-not-finite"].text.endswith("due to the same: clip-7.")
    assert "listen to clip-7".capitalize() in found["utterance-not-finite"].advice


def test_restarts_say_why_and_what_to_keep(tmp_path: Path):
    run = write_run(tmp_path / "run", CONFIG, train_lines())
    write_restart(run, 1, back_to=100, noticed=150, abandoned=[])
    write_restart(run, 2, back_to=200, noticed=270, abandoned=[])
    found = {finding.code: finding for finding in findings(read_run(run), None)}["restarted"]
    assert found.evidence == {"restarts": 2, "noticed_step": 270, "back_to_step": 200, "lost_steps": 120}
    assert "2 times, the last time at step 270 to step 200 (divergence): The smoothed loss was 9.1" in found.text
    assert found.advice.startswith("Set optimiser.learning_rate to 0.0005; start the next run")


def test_what_the_corpus_lacks(tmp_path: Path):
    run = write_run(tmp_path / "run", CONFIG, train_lines())
    symbols = {"a": (90, 9), "z": (0, 0), "?": (0, 2), ";": (0, 0)}
    write_corpus(run, symbols, [("clip-1", "silent"), *((f"clip-{n}", "rate_outlier") for n in range(2, 8))])
    found = {finding.code: finding for finding in findings(read_run(run), None)}
    assert found["symbols-untrained"].evidence == {"symbols": 2, "of": 4}
    assert found["symbols-untrained"].text.endswith("cannot say: “z”, “?”.")
    assert found["clips-rejected"].evidence == {"share": pytest.approx(7 / 51), "rejected": 7, "clips": 51, "most_frequent": 6}
    assert "for the reason rate_outlier" in found["clips-rejected"].text
    assert found["clips-silent"].text == "1 clip holds next to no sound: clip-1."


def test_a_silent_recording_is_heard_in_its_snapshot(tmp_path: Path):
    run = write_run(tmp_path / "run", CONFIG, train_lines())
    path = write_snapshot(run, 600, diagonal()[None], gate(19)[None], [20], ["abcdefghi"])
    with np.load(path) as file:
        arrays = dict(file)
    np.savez_compressed(path, **(arrays | {"mel_target_BTM": np.full_like(arrays["mel_target_BTM"], -11.5)}))
    assert {finding.code for finding in findings(read_run(run), measure(path))} >= {"clips-silent"}


@pytest.mark.parametrize("made", [{"gains": (1.0,)}, {"gains": (0.9, 1.2, 1.3)}, {"lines": train_lines(20) + validations(2.0, 1.9)}])
def test_text_that_may_still_come_to_matter_is_no_swapped_transcript(tmp_path: Path, made: dict[str, Any]):
    assert "text-ignored" not in of(tmp_path / "run", **made)
