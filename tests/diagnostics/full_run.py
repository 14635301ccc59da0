"""A run by hand that has everything a report can show: a restart, skipped updates, halved batches, a module that explodes, rejected clips."""

from pathlib import Path

import numpy as np

from tests.diagnostics.handmade_run import train, validation, write_anomaly, write_corpus, write_modules, write_restart, write_run, write_snapshot
from tts.config import Config
from tts.config.load import override

PARTS = (
    "embedding", "encoder.convolutions", "encoder.lstm", "decoder.prenet", "decoder.attention", "decoder.attention_lstm", "decoder.lstm",
    "decoder.mel", "decoder.gate", "postnet", "recogniser",
)  # fmt: skip


def write_full_run(folder: Path, steps: int = 600) -> Path:
    """A log line each ten steps, a validation each hundred."""
    config = override(Config(), {"training.steps": steps, "guided_attention.hold_steps": steps // 2, "training.validation_interval": 100})
    noise = np.random.default_rng(0)

    def line(step: int, worse: float = 1.0) -> dict:
        loss = worse * (0.6 + 6 * np.exp(-step / 150)) * noise.uniform(0.95, 1.05)
        timing = dict(zip(("data_seconds", "forward_seconds", "backward_seconds", "update_seconds"), (0.02, 0.11, 0.21, 0.03), strict=True))
        terms = {"mel_before": loss / 2, "mel_after": loss / 2.2, "gate": loss / 30, "coarse_mel": loss / 1.8, "consistency": loss / 90}
        return train(step, loss=loss, **terms, gradient_norm=worse * noise.uniform(0.5, 2), learning_rate=1e-3, frames_per_second=9e3, **timing)

    marks = range(10, steps + 1, 10)
    validations = [validation(step, 0.5 + 4 * np.exp(-step / 180)) for step in range(100, steps + 1, 100)]
    run = write_run(folder, config, [*map(line, marks), *validations], skipped=2, totals={"restarts": 1, "frame_budget_halvings": 1})
    abandoned = [line(step, worse=1 + (step - 300) / 20) for step in range(310, 401, 10)]
    write_restart(run, 1, back_to=300, noticed=400, abandoned=abandoned)
    for step in (120, 480):
        write_anomaly(run, step)
    for step in range(100, steps + 1, 100):
        sharp = step / 60
        position = np.abs(np.arange(20)[None] / 20 - np.arange(50)[:, None] / 50)
        alignment = np.exp(-sharp * position * 8)
        alignment /= alignment.sum(1, keepdims=True)
        gate = 1 / (1 + np.exp(-(np.arange(50) - 48) * sharp / 3))
        texts = ["a bright red kite ok", "the quiet harbour ok"]
        write_snapshot(run, step, np.stack([alignment, alignment]), np.stack([gate, gate]), [50, 46], texts, 1 + step / 900)

    def values(place: int, step: int) -> tuple[float | None, float | None, int]:
        size = 10 ** (-place / 4) * noise.uniform(0.5, 2) * (80 if PARTS[place] == "postnet" and 300 < step < 360 else 1)
        return (None, None, 3) if step == 480 and place > 6 else (size, 1e-3 * size**0.3, 0)

    write_modules(run, {step: {part: values(place, step) for place, part in enumerate(PARTS)} for step in marks})
    letters = {letter: (40 + 7 * n, 3) for n, letter in enumerate("abcdefghijklmnopqrstuvwy")}
    rejected = [("clip-3", "silent"), ("clip-11", "rate_outlier"), ("clip-12", "rate_outlier"), ("clip-17", "too_short"), ("clip-21", "duplicate")]
    write_corpus(run, {" ": (800, 60), **letters, "x": (2, 0), "z": (0, 1)}, rejected)
    return run
