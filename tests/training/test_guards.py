"""What the benchmark of guards compares makes the same updates."""

import torch

from tests.benchmarks.guards import variants
from tts.training.modules_log import read_modules


def test_a_guarded_step_updates_as_a_plain_one_does(new_run, tiny, tmp_path):
    weights = {}
    for name in ("plain", "guarded", "logged"):
        learner, batch = new_run(tiny)
        step = variants(learner, tiny, tmp_path)[name]
        for number in (1, 2):
            step(batch, number)
        weights[name] = learner.model.state_dict()
    for other in ("guarded", "logged"):
        assert all(torch.equal(tensor, weights["plain"][name]) for name, tensor in weights[other].items())
    assert [line["step"] for line in read_modules(tmp_path / "modules.jsonl")] == [1, 2]
