import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tts.losses.consistency import attention_consistency_loss

SYMBOLS, FRAMES = 5, 11


def alignments(rows, factors, seed):
    """Distributions over the symbols for each step of each decoder."""
    random = np.random.default_rng(seed)
    return [random.dirichlet(np.ones(SYMBOLS), size=(rows, -(-FRAMES // factor))) for factor in factors]


@given(
    lengths=st.lists(st.tuples(st.integers(1, SYMBOLS), st.integers(0, FRAMES)), min_size=1, max_size=4),
    factors=st.tuples(st.integers(1, 8), st.integers(1, 12)),
    seed=st.integers(0, 99),
)
def test_equals_the_distance_frame_by_frame(lengths, factors, seed):
    """Whether or not one factor divides the other, or the number of frames."""
    fine, coarse = alignments(len(lengths), factors, seed)
    distance = 0.0
    for row, (symbols, frames) in enumerate(lengths):
        for frame in range(frames):
            for n in range(symbols):
                distance += abs(fine[row, frame // factors[0], n] - coarse[row, frame // factors[1], n]) / 2
    symbol_lengths, mel_lengths = (torch.tensor(column) for column in zip(*lengths, strict=True))
    loss = attention_consistency_loss(torch.tensor(fine), torch.tensor(coarse), symbol_lengths, mel_lengths, reduction_factors=factors)
    assert loss.item() == pytest.approx(distance / max(1, int(mel_lengths.sum())), abs=1e-12)


def test_parts_of_a_batch_add_up():
    fine, coarse = (torch.tensor(alignment) for alignment in alignments(3, (2, 5), 0))
    symbols, frames = torch.tensor([5, 2, 3]), torch.tensor([11, 4, 6])

    def loss(rows, every=None):
        return attention_consistency_loss(fine[rows], coarse[rows], symbols[rows], frames[rows], reduction_factors=(2, 5), all_lengths_B=every)

    torch.testing.assert_close(loss(slice(0, 1), frames) + loss(slice(1, 3), frames), loss(slice(0, 3)))
    assert loss(slice(0, 0), frames) == 0


def test_the_same_path_at_two_rates_costs_only_what_the_coarser_cannot_follow():
    """Two frames a symbol. A decoder of two frames a step says the same; one of four is right half of the time."""
    path = torch.eye(4).repeat_interleave(2, dim=0)[None]
    lengths = torch.tensor([4]), torch.tensor([8])
    assert attention_consistency_loss(path, path[:, ::2], *lengths, reduction_factors=(1, 2)) == 0
    assert attention_consistency_loss(path, path[:, ::4], *lengths, reduction_factors=(1, 4)) == 0.5
    assert attention_consistency_loss(path, path[:, ::2].flip(1), *lengths, reduction_factors=(1, 2)) == 1


def test_padding_is_not_seen_and_both_attentions_are_drawn():
    fine, coarse = (torch.tensor(alignment) for alignment in alignments(2, (2, 5), 1))
    symbols, frames = torch.tensor([5, 2]), torch.tensor([5, 11])
    noisy, rough = fine.clone(), coarse.clone()
    noisy[0, 3:], rough[0, 1:] = torch.inf, torch.inf
    noisy[1, :, 2:], rough[1, :, 2:] = 1e30, torch.inf
    for one in (fine, coarse, noisy, rough):
        one.requires_grad_()
    loss = attention_consistency_loss(fine, coarse, symbols, frames, reduction_factors=(2, 5))
    same = attention_consistency_loss(noisy, rough, symbols, frames, reduction_factors=(2, 5))
    assert torch.equal(loss, same)
    same.backward()
    for gradient, rows in ((noisy.grad, (3, 6)), (rough.grad, (1, 3))):
        assert gradient[0, : rows[0]].any()
        assert not gradient[0, rows[0] :].any()
        assert gradient[1, : rows[1], :2].any()
        assert not gradient[1, :, 2:].any()
