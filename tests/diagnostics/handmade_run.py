"""Run folders written by hand: what a report must cope with, without training for it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tts.config import Config
from tts.config.load import to_json


def write_run(folder: Path, config: Config, lines: list[dict[str, Any]], *, state: str = "finished", skipped: int = 0) -> Path:
    """A run without snapshots."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(to_json(config))
    step = max((line["step"] for line in lines), default=0)
    values = {"state": state, "step": step, "fingerprint": "0123456789abcdef", "language": "en"}
    (folder / "run.json").write_text(json.dumps({**values, "totals": {"skipped_updates": skipped, "overflows": 0, "seconds": 12.5}}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def validation(step: int, mel_loss: float | None) -> dict[str, Any]:
    return {"kind": "validation", "step": step, "mel_loss": mel_loss, "gate_loss": 0.1}


def write_snapshot(run: Path, step: int, alignment_BSN: np.ndarray, gate_BT: np.ndarray, mel_lengths: list[int], texts: list[str]) -> Path:
    """One frame to a decoder step."""
    batch, steps, symbols = alignment_BSN.shape
    path = run / "snapshots" / f"step-{step:08d}.npz"
    path.parent.mkdir(exist_ok=True)
    mel_BTM = np.random.default_rng(step).normal(size=(batch, steps, 8)).astype(np.float32)
    np.savez_compressed(
        path,
        allow_pickle=False,
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


def write_anomaly(run: Path, step: int) -> None:
    folder = run / "anomalies"
    folder.mkdir(exist_ok=True)
    values = {
        "step": step,
        "kind": "gradient",
        "name": "decoder.gate.weight",
        "value": "nan",
        "utterances": ["clip-7"],
        "batch": ["clip-7", "clip-8"],
    }
    (folder / f"step-{step:08d}.json").write_text(json.dumps({**values, "figures": {"loss": "nan"}, "action": "update skipped"}))
