"""Gate measures against a NumPy loop, and at the edges."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tts.diagnostics.aggregate import aggregate
from tts.diagnostics.gate import gate_measures


def loops(gate: np.ndarray) -> dict[str, float]:
    right, first = 0, None
    for t, p in enumerate(gate):
        right += (p > 0.5) == (t == len(gate) - 1)
        if p > 0.5 and first is None:
            first = t
    error = math.inf if first is None else abs(first + 1 - len(gate))
    shut = [p <= 0.5 for p in gate[:-1]]
    balanced = ((gate[-1] > 0.5) + sum(shut) / len(shut)) / 2 if shut else float(gate[-1] > 0.5)
    shares = {"accuracy": right / len(gate), "balanced_accuracy": balanced, "on_time": float(error <= len(gate) / 4)}
    return {**shares, "stop_error_frames": error, "stopped": float(first is not None)}


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4), seed=st.integers(0, 2**16))
def test_equals_the_loop_whatever_the_padding_holds(lengths: list[int], seed: int):
    gate = torch.full((len(lengths), max(lengths) + 3), float("nan"))
    for row, length in enumerate(lengths):
        gate[row, :length] = torch.rand(length, generator=torch.Generator().manual_seed(seed + row)) ** 2
    measures = gate_measures(gate, torch.tensor(lengths))
    assert measures["valid"].all()
    for row, length in enumerate(lengths):
        for name, expected in loops(gate[row, :length].numpy()).items():
            assert float(measures[name][row]) == pytest.approx(expected), name


def one(values: list[float], dtype: torch.dtype = torch.float32) -> dict[str, float]:
    return {name: float(value) for name, value in gate_measures(torch.tensor([values], dtype=dtype), torch.tensor([len(values)])).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_perfect_gate(dtype: torch.dtype):
    assert one([0, 0, 0, 1], dtype) == {"accuracy": 1, "balanced_accuracy": 1, "stop_error_frames": 0, "stopped": 1, "on_time": 1, "valid": True}


def test_early_gate_is_off_by_its_distance():
    assert one([0, 0.9, 0.9, 0.9]) == {
        "accuracy": 0.5,
        "balanced_accuracy": pytest.approx(2 / 3),
        "stop_error_frames": 2,
        "stopped": 1,
        "on_time": 0,
        "valid": True,
    }


def test_a_gate_that_never_opens_is_infinitely_late():
    assert one([0.1, 0.2, 0.5, 0.5]) == {
        "accuracy": 0.75,
        "balanced_accuracy": 0.5,
        "stop_error_frames": math.inf,
        "stopped": 0,
        "on_time": 0,
        "valid": True,
    }


def test_single_frame():
    assert one([0.9]) == {"accuracy": 1, "balanced_accuracy": 1, "stop_error_frames": 0, "stopped": 1, "on_time": 1, "valid": True}


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1.5, -0.1])
def test_what_is_no_probability_is_invalid(wrong: float):
    measures = one([0, wrong, 1])
    assert not measures.pop("valid")
    assert all(math.isnan(value) for value in measures.values())


def test_empty_is_invalid_not_good():
    measures = gate_measures(torch.zeros(2, 0), torch.tensor([0, 0]))
    assert not measures["valid"].any()
    assert torch.isnan(measures["accuracy"]).all()
    assert torch.isnan(measures["stop_error_frames"]).all()
    mixed = gate_measures(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([2, 0]))
    assert mixed["valid"].tolist() == [True, False]
    assert gate_measures(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))["accuracy"].shape == (0,)


def test_a_length_beyond_the_tensor_is_refused():
    with pytest.raises(ValueError, match="mel length 4 exceeds the gate's 3"):
        gate_measures(torch.zeros(1, 3), torch.tensor([4]))


def test_aggregate_counts_invalid_utterances():
    gate = torch.tensor([[0.0, 1.0], [float("nan"), 1.0]])
    assert aggregate(gate_measures(gate[:1], torch.tensor([2])))["accuracy"] == 1
    broken = aggregate(gate_measures(gate, torch.tensor([2, 2])))
    assert broken["invalid"] == 1
    assert math.isnan(broken["accuracy"])
