"""The end of a text against a plain loop, and at the edges."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tts.diagnostics.attention import END_SYMBOLS
from tts.diagnostics.gate import THRESHOLD
from tts.diagnostics.stopping import stopping_measures


def loop(rows, gate, factor):
    """One utterance, true cells only."""
    for step, row in enumerate(rows.tolist()):
        if row.index(max(row)) >= len(row) - END_SYMBOLS:
            return 1.0
        if any(probability > THRESHOLD for probability in gate[step * factor : (step + 1) * factor].tolist()):
            return 0.0
    return 0.0


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2)), min_size=1, max_size=4),
    factor=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_equals_the_loop_whatever_the_padding_holds(shapes, factor, seed):
    generator = torch.Generator().manual_seed(seed)
    steps = max(length for length, _, _ in shapes) + 2
    alignment = torch.full((len(shapes), steps, max(symbols for _, symbols, _ in shapes) + 1), float("nan"))
    gate = torch.full((len(shapes), steps * factor), float("nan"))
    frames = []
    for row, (length, symbols, missing) in enumerate(shapes):
        alignment[row, :length, :symbols] = torch.softmax(6 * torch.randn(length, symbols, generator=generator), 1)
        frames.append(length * factor - min(missing, factor - 1))
        gate[row, : frames[-1]] = torch.rand(frames[-1], generator=generator) ** 3
    lengths = torch.tensor([shape[:2] for shape in shapes])
    measures = stopping_measures(alignment, gate, lengths[:, 1], lengths[:, 0], torch.tensor(frames))
    assert measures["valid"].all()
    for row, (length, symbols, _) in enumerate(shapes):
        expected = loop(alignment[row, :length, :symbols], gate[row, : frames[row]], factor)
        assert float(measures["end_reached_before_stop"][row]) == expected


def one(path, symbols, gate):
    rows = torch.nn.functional.one_hot(torch.tensor(path), symbols).float()
    lengths = (torch.tensor([symbols]), torch.tensor([len(path)]), torch.tensor([len(gate)]))
    return stopping_measures(rows[None], torch.tensor([gate]), *lengths)


@pytest.mark.parametrize(
    ("path", "gate", "expected"),
    [
        ([0, 3, 6, 9], [0, 0, 0, 1], 1),
        ([0, 3, 7, 7], [0, 0, 1, 1], 1),  # in the very step
        ([0, 3, 6, 9], [0, 0, 1, 1], 0),  # too early: the last step would have come there
        ([0, 3, 6, 6], [0, 0, 0, 0], 0),
        ([0, 9, 0, 0], [0, 0, 0, 0], 1),
        ([9], [1], 1),
        ([0], [1], 0),
    ],
)
def test_what_counts_is_the_first_open_frame(path, gate, expected):
    assert float(one(path, 10, [float(value) for value in gate])["end_reached_before_stop"]) == expected


def test_uniform_attention_reached_nothing():
    lengths = torch.tensor([20]), torch.tensor([6]), torch.tensor([6])
    assert float(stopping_measures(torch.full((1, 6, 20), 0.05), torch.eye(6)[5:], *lengths)["end_reached_before_stop"]) == 0


@pytest.mark.parametrize("spoilt", ["alignment", "gate"])
def test_either_invalid_makes_it_invalid_and_leaves_its_neighbour_alone(spoilt):
    alignment, gate = torch.eye(4).expand(2, 4, 4).clone(), torch.eye(4)[3].expand(2, 4).clone()
    {"alignment": alignment, "gate": gate}[spoilt][0].view(-1)[0] = torch.nan
    lengths = torch.tensor([4, 4])
    measures = stopping_measures(alignment, gate, lengths, lengths, lengths)
    assert measures["valid"].tolist() == [False, True]
    assert math.isnan(measures["end_reached_before_stop"][0])
    assert measures["end_reached_before_stop"][1] == 1


def test_empty_is_invalid_not_good():
    nothing = torch.tensor([0, 0])
    for shape in ((2, 0, 5), (2, 4, 0)):
        measures = stopping_measures(torch.zeros(shape), torch.zeros(2, shape[1]), nothing, nothing, nothing)
        assert not measures["valid"].any()
        assert measures["end_reached_before_stop"].isnan().all()
    nobody = torch.zeros(0, dtype=torch.int64)
    assert stopping_measures(torch.zeros(0, 3, 2), torch.zeros(0, 6), nobody, nobody, nobody)["end_reached_before_stop"].shape == (0,)


def test_frames_that_are_no_steps_are_refused():
    with pytest.raises(ValueError, match="7 frames of a gate are no multiple of an alignment's 3 steps"):
        stopping_measures(torch.ones(1, 3, 1), torch.zeros(1, 7), torch.tensor([1]), torch.tensor([3]), torch.tensor([7]))
