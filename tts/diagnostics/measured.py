"""Attention and gate measures of a run's snapshots."""

from dataclasses import dataclass
from pathlib import Path

import torch

from tts.diagnostics.aggregate import aggregate
from tts.diagnostics.attention import attention_measures
from tts.diagnostics.gate import gate_measures
from tts.diagnostics.run_record import Snapshot, read_snapshot
from tts.diagnostics.stopping import stopping_measures


@dataclass(frozen=True)
class Measured:
    """A snapshot with its measures, in the order of its utterances."""

    snapshot: Snapshot
    attention: tuple[dict[str, float], ...]
    """NaN throughout where the alignment is none; see `attention_measures`."""
    gate: tuple[dict[str, float], ...]
    attention_means: dict[str, float]
    """Over the utterances, and `invalid`: how many are."""
    gate_means: dict[str, float]


def measure(path: Path) -> Measured:
    """Raises DataError for a damaged snapshot."""
    snapshot = read_snapshot(path)
    lengths_B, symbol_lengths_B, step_lengths_B = (
        torch.from_numpy(lengths) for lengths in (snapshot.mel_lengths_B, snapshot.symbol_lengths_B, snapshot.step_lengths_B)
    )
    attention = attention_measures(torch.from_numpy(snapshot.alignment_BSN), symbol_lengths_B, step_lengths_B)
    gate = gate_measures(torch.from_numpy(snapshot.gate_BT), lengths_B)
    alignment_BSN, gate_BT = torch.from_numpy(snapshot.alignment_BSN), torch.from_numpy(snapshot.gate_BT)
    stopping = stopping_measures(alignment_BSN, gate_BT, symbol_lengths_B, step_lengths_B, lengths_B)
    gate["end_reached_before_stop"] = stopping["end_reached_before_stop"]
    return Measured(snapshot, per_utterance(attention), per_utterance(gate), aggregate(attention), aggregate(gate))


def per_utterance(measures: dict[str, torch.Tensor]) -> tuple[dict[str, float], ...]:
    """One mapping for each utterance, without the flag."""
    names = [name for name in measures if name != "valid"]
    columns = [measures[name].tolist() for name in names]
    return tuple(dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))
