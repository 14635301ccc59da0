"""Attention measures against NumPy loops written from their definitions, and at the edges."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tts.diagnostics.aggregate import aggregate
from tts.diagnostics.attention import ATTENDED, BAND_HALF_WIDTH, END_SYMBOLS, JUMP, attention_measures

NAMES = {"entropy", "focus", "diagonality", "coverage", "monotonicity", "repetitions", "skips", "end_reached"}


def loops(rows: np.ndarray) -> dict[str, float]:
    """One utterance, true cells only: every measure cell by cell."""
    steps, symbols = rows.shape
    entropy = focus = near = 0.0
    for t, row in enumerate(rows):
        entropy += -sum(p * math.log(p) for p in row if p > 0) / (math.log(symbols) if symbols > 1 else 1.0)
        focus += max(row)
        for n, p in enumerate(row):
            half = max(BAND_HALF_WIDTH, 0.5 / steps + 0.5 / symbols) + 1e-5
            near += p if abs((n + 0.5) / symbols - (t + 0.5) / steps) <= half else 0.0
    attended = sum(any(rows[t, n] > ATTENDED for t in range(steps)) for n in range(symbols))
    positions = [int(np.argmax(row)) for row in rows]
    back = sum(b < a for a, b in itertools.pairwise(positions))
    moves = [b - a for a, b in zip([0, *positions], positions, strict=False)]
    return {
        "entropy": entropy / steps,
        "focus": focus / steps,
        "diagonality": near / steps,
        "coverage": attended / symbols,
        "monotonicity": 1 - back / max(1, steps - 1),
        "repetitions": sum(move < -JUMP for move in moves),
        "skips": sum(move > JUMP for move in moves),
        "end_reached": float(positions[-1] >= symbols - END_SYMBOLS),
    }


def measure(rows: Tensor) -> dict[str, float]:
    """One utterance without padding."""
    measures = attention_measures(rows[None], torch.tensor([rows.shape[1]]), torch.tensor([rows.shape[0]]))
    return {name: float(value) for name, value in measures.items()}


def diagonal(steps: int, symbols: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.arange(steps) * symbols // steps, symbols).float()


@settings(max_examples=40, deadline=None)
@given(shapes=st.lists(st.tuples(st.integers(1, 14), st.integers(1, 11)), min_size=1, max_size=4), seed=st.integers(0, 2**16))
def test_equals_the_loops_whatever_the_padding_holds(shapes: list[tuple[int, int]], seed: int):
    generator = torch.Generator().manual_seed(seed)
    padded = torch.full((len(shapes), max(s for s, _ in shapes) + 2, max(n for _, n in shapes) + 1), float("nan"))
    for row, (steps, symbols) in enumerate(shapes):
        padded[row, :steps, :symbols] = torch.softmax(4 * torch.randn(steps, symbols, generator=generator), 1)
    lengths = torch.tensor(shapes)
    measures = attention_measures(padded, lengths[:, 1], lengths[:, 0])
    assert measures["valid"].all()
    assert measures.keys() == NAMES | {"valid"}
    for row, (steps, symbols) in enumerate(shapes):
        for name, expected in loops(padded[row, :steps, :symbols].double().numpy()).items():
            assert float(measures[name][row]) == pytest.approx(expected, abs=1e-5), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("steps", "symbols"), [(40, 20), (20, 20), (13, 7), (400, 80)])
def test_one_hot_diagonal_is_perfect(steps: int, symbols: int, dtype: torch.dtype):
    measures = measure(diagonal(steps, symbols).to(dtype))
    perfect = {"entropy": 0, "focus": 1, "diagonality": 1, "coverage": 1, "monotonicity": 1, "repetitions": 0, "skips": 0, "end_reached": 1}
    assert measures == perfect | {"valid": True}


def test_zero_entropy_is_not_minus_zero():
    assert math.copysign(1, measure(diagonal(9, 3))["entropy"]) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_uniform_is_blur(dtype: torch.dtype):
    measures = measure(torch.full((200, 100), 0.01, dtype=dtype))
    assert measures["valid"]
    assert measures["entropy"] == pytest.approx(1, abs=1e-4)
    assert measures["focus"] == pytest.approx(0.01, rel=1e-2)
    assert measures["diagonality"] == pytest.approx(2 * BAND_HALF_WIDTH - BAND_HALF_WIDTH**2, abs=0.02)
    assert measures["coverage"] == 0
    assert measures["end_reached"] == 0


@pytest.mark.parametrize("symbol", [0, 19])
def test_stuck_attention_scores_badly_where_it_counts(symbol: int):
    rows = torch.zeros(40, 20)
    rows[:, symbol] = 1
    measures = measure(rows)
    assert measures["diagonality"] < 0.2
    assert measures["coverage"] == pytest.approx(1 / 20)
    assert measures["skips"] == (symbol > JUMP)
    assert measures["end_reached"] == (symbol == 19)


def test_reversed_reading_is_not_monotonic():
    measures = measure(diagonal(20, 20).flip(0))
    assert measures["monotonicity"] == 0
    assert measures["diagonality"] < 0.35
    assert measures["end_reached"] == 0


def test_repetitions_and_skips_are_jumps_of_more_than_three_symbols():
    path = [0, 1, 2, 3, 0, 4, 8, 4, 5, 1, 5, 9, 9]  # moves: -3, +4, +4, -4, -4, +4, +4
    measures = measure(torch.nn.functional.one_hot(torch.tensor(path), 10).float())
    assert (measures["repetitions"], measures["skips"]) == (2, 4)
    assert measures["monotonicity"] == pytest.approx(1 - 3 / 12)


@pytest.mark.parametrize(("steps", "symbols"), [(1, 1), (1, 2), (5, 1)])
def test_smallest_inputs_are_finite(steps: int, symbols: int):
    measures = measure(torch.full((steps, symbols), 1 / symbols))
    assert measures["valid"]
    assert all(math.isfinite(value) for value in measures.values())
    assert measures["entropy"] == (1 if symbols > 1 else 0)


def _spoilt(kind: str) -> Tensor:
    rows = diagonal(8, 4)
    if kind == "NaN":
        rows[3, 1] = float("nan")
    elif kind == "infinite":
        rows[3, 1] = float("inf")
    elif kind == "zero mass":
        rows[3] = 0
    elif kind == "negative":
        rows[3, 0], rows[3, 1] = 1.5, -0.5
    elif kind == "not a distribution":
        rows[3] *= 2
    return rows


@pytest.mark.parametrize("kind", ["NaN", "infinite", "zero mass", "negative", "not a distribution"])
def test_what_is_no_attention_is_invalid_and_leaves_its_neighbour_alone(kind: str):
    pair = torch.stack([_spoilt(kind), diagonal(8, 4)])
    measures = attention_measures(pair, torch.tensor([4, 4]), torch.tensor([8, 8]))
    assert measures.pop("valid").tolist() == [False, True]
    assert all(math.isnan(value[0]) and math.isfinite(value[1]) for value in measures.values())


def test_mass_on_padded_symbols_is_invalid():
    measures = attention_measures(torch.full((1, 3, 4), 0.25), torch.tensor([2]), torch.tensor([3]))
    assert not measures["valid"].any()


def test_empty_utterances_and_batches_are_invalid_not_good():
    no_steps = attention_measures(torch.zeros(2, 0, 5), torch.tensor([5, 5]), torch.tensor([0, 0]))
    no_symbols = attention_measures(torch.zeros(2, 5, 0), torch.tensor([0, 0]), torch.tensor([5, 5]))
    all_padding = attention_measures(torch.ones(2, 3, 1), torch.tensor([1, 1]), torch.tensor([3, 0]))
    assert not no_steps["valid"].any()
    assert not no_symbols["valid"].any()
    assert all_padding["valid"].tolist() == [True, False]
    assert all(torch.isnan(no_steps[name]).all() and torch.isnan(no_symbols[name]).all() for name in NAMES)
    nobody = attention_measures(torch.zeros(0, 3, 2), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert all(value.shape == (0,) for value in nobody.values())


def test_a_length_beyond_the_tensor_is_refused():
    with pytest.raises(ValueError, match="step length 4 exceeds the alignment's 3"):
        attention_measures(torch.ones(1, 3, 1), torch.tensor([1]), torch.tensor([4]))


def test_no_gradient_is_kept():
    alignment = torch.softmax(torch.randn(1, 4, 3, requires_grad=True), 2)
    measures = attention_measures(alignment, torch.tensor([3]), torch.tensor([4]))
    assert not any(value.requires_grad for value in measures.values())


def test_aggregate_is_the_mean_and_one_invalid_utterance_shows():
    good, bad = diagonal(8, 4), _spoilt("NaN")
    lengths = {"symbol_lengths_B": torch.tensor([4, 4]), "step_lengths_B": torch.tensor([8, 8])}
    blur = torch.full((8, 4), 0.25)
    healthy = aggregate(attention_measures(torch.stack([good, blur]), **lengths))
    assert healthy["entropy"] == pytest.approx(0.5)
    assert healthy["focus"] == pytest.approx((1 + 0.25) / 2)
    assert healthy["invalid"] == 0
    broken = aggregate(attention_measures(torch.stack([good, bad]), **lengths))
    assert broken["invalid"] == 1
    assert math.isnan(broken["entropy"])
    assert math.isnan(broken["diagonality"])
