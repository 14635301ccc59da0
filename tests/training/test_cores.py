import pytest
import torch

from tts.cores import usable_cores
from tts.training.cores import set_threads


@pytest.fixture(autouse=True)
def _as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (3, 3), (0, usable_cores())])
def test_threads_asked_for_and_zero_is_every_usable_core(asked, given):
    set_threads(asked)
    assert torch.get_num_threads() == given
