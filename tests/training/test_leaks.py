"""Nothing stays behind from one step to the next, nor from one run to the next in a process. What the allocators keep: tests/benchmarks/leaks.py."""

import gc

import torch

from tts.config.load import override
from tts.progress import Silent
from tts.training.loop import train
from tts.training.preemption import StopFlag
from tts.training.ranks import ALONE
from tts.training.updates import Updates


def living():
    """Number and bytes of the tensors that anything in this process still refers to."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter)]
    return len(tensors), sum(one.numel() * one.element_size() for one in tensors)


def test_steps_of_mixed_lengths_leave_no_tensor_behind(store, tiny):
    updates = Updates(store, override(tiny, {"data.frame_budget": 400}), ALONE)
    lengths, counts = set(), set()
    for step in range(12):
        _, batch = updates.make()
        lengths.add(batch.mel_BTM.shape[1])
        del batch
        if step >= 2:
            counts.add(living()[0])
    assert len(lengths) > 3
    assert len(counts) == 1


def test_runs_in_one_process_leave_no_tensor_behind(store, tiny, tmp_path):
    config = override(tiny, {"training.steps": 1, "training.validation_interval": 1})
    counts = set()
    for number in range(4):
        list(train(store, config, tmp_path / str(number), progress=Silent(), stop=StopFlag()))
        if number:
            counts.add(living())
    assert len(counts) == 1
