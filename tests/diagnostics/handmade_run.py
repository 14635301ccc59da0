"""Run folders written by hand: what a report must cope with, without training for it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tts.config import Config
from tts.config.load import to_json


def write_run(
    folder: Path, config: Config, lines: list[dict[str, Any]], *, state: str = "finished", skipped: int = 0, totals: dict[str, int] | None = None
) -> Path:
    """A run without snapshots."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(to_json(config))
    step = max((line["step"] for line in lines), default=0)
    values = {"state": state, "step": step, "fingerprint": "0123456789abcdef", "language": "en"}
    (folder / "run.json").write_text(
        json.dumps({**values, "totals": {"skipped_updates": skipped, "overflows": 0, "seconds": 12.5, **(totals or {})}})
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def validation(step: int, mel_loss: float | None) -> dict[str, Any]:
    return {"kind": "validation", "step": step, "mel_loss": mel_loss, "gate_loss": 0.1}


def train(step: int, **values: float | None) -> dict[str, Any]:
    return {"kind": "train", "step": step, **values}


def write_snapshot(
    run: Path, step: int, alignment_BSN: np.ndarray, gate_BT: np.ndarray, mel_lengths: list[int], texts: list[str], text_gain: float | None = None
) -> Path:
    """One frame to a decoder step. A snapshot without `text_gain` is an older one."""
    batch, steps, symbols = alignment_BSN.shape
    path = run / "snapshots" / f"step-{step:08d}.npz"
    path.parent.mkdir(exist_ok=True)
    mel_BTM = np.random.default_rng(step).normal(size=(batch, steps, 8)).astype(np.float32)
    losses = {} if text_gain is None else {"mel_loss_B": np.ones(batch), "other_text_mel_loss_B": np.full(batch, text_gain)}
    np.savez_compressed(
        path,
        allow_pickle=False,
        **losses,
        ids_B=np.array([f"clip-{row}" for row in range(batch)]),
        texts_B=np.array(texts),
        symbol_lengths_B=np.full(batch, symbols),
        mel_lengths_B=np.array(mel_lengths),
        step_lengths_B=np.array(mel_lengths),
        alignment_BSN=alignment_BSN.astype(np.float32),
        gate_BT=gate_BT.astype(np.float32),
        mel_target_BTM=mel_BTM,
        mel_BTM=mel_BTM + 0.1,
    )
    return path


def write_anomaly(run: Path, step: int, utterance: str = "clip-7") -> None:
    folder = run / "anomalies"
    folder.mkdir(exist_ok=True)
    values = {
        "step": step,
        "kind": "gradient",
        "name": "decoder.gate.weight",
        "value": "nan",
        "utterances": [utterance],
        "batch": [utterance, "clip-8"],
    }
    (folder / f"step-{step:08d}.json").write_text(json.dumps({**values, "figures": {"loss": "nan"}, "action": "update skipped"}))


def write_modules(run: Path, lines: dict[int, dict[str, tuple[float | None, float | None, int]]]) -> None:
    """Step to part of the network to gradient norm, update ratio and values that are not finite."""
    fields = ("gradient_norm", "update_ratio", "non_finite")
    objects = [
        {"step": step, **{field: {part: values[place] for part, values in parts.items()} for place, field in enumerate(fields)}}
        for step, parts in lines.items()
    ]
    (run / "modules.jsonl").write_text("".join(json.dumps(line) + "\n" for line in objects))


def write_corpus(run: Path, symbols: dict[str, tuple[int, int]], rejected: list[tuple[str, str]] | None) -> None:
    """Symbol to how often it is trained on and held out."""
    values = {
        "symbols": {symbol: {"training": training, "held_out": held_out} for symbol, (training, held_out) in symbols.items()},
        "dead_symbols": [symbol for symbol, (training, _) in symbols.items() if symbol.isalpha() and not training],
        "rejected": None if rejected is None else [{"id": identity, "reason": reason, "detail": ""} for identity, reason in rejected],
        "utterances": {"training": 40, "held_out": 4},
    }
    (run / "corpus.json").write_text(json.dumps(values))


def write_restart(run: Path, number: int, *, back_to: int, noticed: int, abandoned: list[dict[str, Any]]) -> None:
    folder = run / "restarts" / f"{number:02d}"
    folder.mkdir(parents=True)
    values = {
        "number": number,
        "trigger": "divergence",
        "sentence": "The smoothed loss was 9.1 at its worst, more than 3 times its lowest, 2.2",
        "evidence": {"smoothed_loss": 9.1, "lowest": 2.2},
        "began_step": back_to + 1,
        "noticed_step": noticed,
        "back_to_step": back_to,
        "remedy": {"optimiser.learning_rate": [1e-3, 5e-4], "training.seed": [0, number]},
    }
    (folder / "restart.json").write_text(json.dumps(values))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in abandoned))
