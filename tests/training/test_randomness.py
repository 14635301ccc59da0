import itertools

import torch

from tts.training.randomness import reseed


def _draw(seed, step):
    reseed(seed, step)
    return torch.rand(4)


def test_a_step_draws_the_same_whatever_was_drawn_before():
    first = _draw(3, 7)
    torch.rand(1000)
    assert torch.equal(_draw(3, 7), first)


def test_neighbouring_seeds_and_steps_draw_different_numbers():
    draws = [_draw(seed, step) for seed in range(4) for step in range(4)]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(draws, 2))
