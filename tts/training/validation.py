"""What a network makes of the held-out utterances, teacher-forced.

Eval mode, float32, every held-out utterance, pooled over utterances so that the batching does not matter. The prenet's dropout follows
`model.prenet_dropout_at_inference`, as in synthesis, under one seed for all validations: figures differ by the weights, not by luck.

Shape letters: B batch, N symbols, T frames, S decoder steps, M mels.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tts.config import Config, ModelConfig
from tts.data.batch import Batch
from tts.diagnostics.aggregate import aggregate
from tts.diagnostics.attention import attention_measures
from tts.diagnostics.gate import gate_measures
from tts.diagnostics.recognition import recognition_errors
from tts.losses.gate import gate_loss
from tts.losses.mel import mel_loss
from tts.losses.total import total_loss
from tts.model.frames import step_lengths
from tts.model.output import Tacotron2Output
from tts.model.tacotron2 import Tacotron2
from tts.storage import writing
from tts.training.metrics_log import WALL_CLOCK_FIELDS, read_metrics
from tts.training.randomness import reseed
from tts.training.saturation import SATURATION_FIELDS
from tts.training.text_use import mel_losses, other_text_losses

VALIDATION_METRICS = (
    "loss",
    "mel_loss",
    "gate_loss",
    "attention_entropy",
    "attention_focus",
    "attention_diagonality",
    "gate_accuracy",
    "gate_stop_error",
    "gate_on_time",
)
"""loss: as minimised at that step. mel_loss: MSE after the postnet, whatever losses.mel is. gate_loss: without positive weight.
gate_stop_error: frames, infinite as long as some gate never opens. gate_on_time: share of the clips in whose last quarter it first
opens. The others: tts/diagnostics."""

RECOGNISER_METRICS = {"recogniser_error_rate": "model.recogniser"}
"""Of a network with a recogniser, beside VALIDATION_METRICS, and the knob that gives it one. Errors of what it hears in the decoder's states, a label
of the text."""

SNAPSHOT_UTTERANCES = 4
"""Held-out utterances, the first ones, of which each validation keeps pictures."""

VALIDATION_SEED = 0

Measure = Callable[[Tacotron2], dict[str, float]]
"""Further metrics of a network, by names that are not among VALIDATION_METRICS; NaN or infinite where they cannot be measured."""


def validation_metrics(config: ModelConfig) -> tuple[str, ...]:
    """Names of what a network's validation measures."""
    return VALIDATION_METRICS + (tuple(RECOGNISER_METRICS) if config.recogniser else ())


@dataclass(frozen=True)
class ValidationRecord:
    """One validation."""

    step: int
    metrics: dict[str, float]
    """By the names of `validation_metrics` and those of the run's `Measure`; NaN or infinite where the network is."""
    snapshot: Path | None
    """Alignments, gates and mels of the first held-out utterances."""


def past_records(run: Path) -> list[ValidationRecord]:
    """The validations of a run so far, for a caller that takes over a resumed one. Raises DataError."""
    return [_record(run, line) for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "validation"]


def snapshot_path(run: Path, step: int) -> Path:
    """Where the snapshot of a step is."""
    return run / "snapshots" / f"step-{step:08d}.npz"


@torch.no_grad()
def validate(model: Tacotron2, batches: Iterable[Batch], config: Config, step: int, device: torch.device) -> dict[str, float]:
    """The metrics that `validation_metrics` names. Batches may be on the host; one is on the device at a time."""
    model.eval()
    reseed(VALIDATION_SEED, 0)
    sums = dict.fromkeys(("loss", "mel_loss", "gate_loss"), 0.0)
    frames = gate_frames = errors = labels = 0
    attention: list[dict[str, torch.Tensor]] = []
    gate: list[dict[str, torch.Tensor]] = []
    for batch in batches:
        on_device = batch.to(device)
        lengths_B = on_device.mel_lengths_B
        output = _forward(model, on_device)
        factor = output.reduction_factor
        steps_B = step_lengths(lengths_B, factor)
        counted = int(steps_B.sum()) * factor
        mel = mel_loss(output.mel_post_BTM, on_device.mel_BTM, lengths_B, "mse")
        sums["loss"] += float(total_loss(output, on_device, config, step).total) * batch.frames
        sums["mel_loss"] += float(mel) * batch.frames
        sums["gate_loss"] += float(gate_loss(output.gate_logits_BT, lengths_B, reduction_factor=factor, positive_weight=1.0)) * counted
        frames += batch.frames
        gate_frames += counted
        attention.append(attention_measures(output.alignment_BSN, on_device.symbol_lengths_B, steps_B))
        gate.append(gate_measures(output.gate_logits_BT.sigmoid(), lengths_B))
        if output.recognition:
            errors += int(recognition_errors(output.recognition, steps_B).sum())
            labels += int(output.recognition.label_lengths_B.sum())
    means = {"loss": sums["loss"] / frames, "mel_loss": sums["mel_loss"] / frames, "gate_loss": sums["gate_loss"] / gate_frames}
    attention_means, gate_means = aggregate(_joined(attention)), aggregate(_joined(gate))
    return {
        **means,
        **{f"attention_{name}": attention_means[name] for name in ("entropy", "focus", "diagonality")},
        "gate_accuracy": gate_means["accuracy"],
        "gate_stop_error": gate_means["stop_error_frames"],
        "gate_on_time": gate_means["on_time"],
        **({"recogniser_error_rate": errors / labels if labels else math.nan} if model.recogniser else {}),
    }


@torch.no_grad()
def write_snapshot(path: Path, model: Tacotron2, batch: Batch, texts: Sequence[str], device: torch.device) -> None:
    """Leaves an .npz without pickles: what the network makes of one batch, teacher-forced. Raises CannotWriteError.

    Arrays: ids_B, texts_B; symbol_lengths_B, mel_lengths_B, step_lengths_B; alignment_BSN; gate_BT (probabilities); mel_target_BTM, mel_BTM
    (after the postnet); mel_loss_B and, with each other's texts, other_text_mel_loss_B (text_use.py). T is S times the reduction factor in all of
    them, and cells past the lengths carry no meaning.
    """
    model.eval()
    reseed(VALIDATION_SEED, 0)
    on_device = batch.to(device)
    output = _forward(model, on_device)
    reseed(VALIDATION_SEED, 0)
    other_text_B = other_text_losses(on_device, lambda exchanged: _forward(model, exchanged))
    padding = output.mel_BTM.shape[1] - batch.mel_BTM.shape[1]
    arrays: dict[str, NDArray[np.generic]] = {
        "ids_B": np.array(batch.ids),
        "texts_B": np.array(texts),
        "symbol_lengths_B": batch.symbol_lengths_B.numpy(),
        "mel_lengths_B": batch.mel_lengths_B.numpy(),
        "step_lengths_B": step_lengths(batch.mel_lengths_B, output.reduction_factor).numpy(),
        "alignment_BSN": output.alignment_BSN.float().cpu().numpy(),
        "gate_BT": output.gate_logits_BT.float().sigmoid().cpu().numpy(),
        "mel_target_BTM": np.pad(batch.mel_BTM.numpy(), ((0, 0), (0, padding), (0, 0))),
        "mel_BTM": output.mel_post_BTM.float().cpu().numpy(),
        "mel_loss_B": mel_losses(output, on_device).cpu().numpy(),
        "other_text_mel_loss_B": other_text_B.cpu().numpy(),
    }
    with writing(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _forward(model: Tacotron2, batch: Batch) -> Tacotron2Output:
    output: Tacotron2Output = model(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B, batch.speakers_B)
    return output


def _joined(parts: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _record(run: Path, line: dict[str, float]) -> ValidationRecord:
    step = int(line["step"])
    path = snapshot_path(run, step)
    measured = {name: float(value) for name, value in line.items() if name not in ("kind", "step", *WALL_CLOCK_FIELDS, *SATURATION_FIELDS)}
    return ValidationRecord(step, dict.fromkeys(VALIDATION_METRICS, math.nan) | measured, path if path.is_file() else None)
