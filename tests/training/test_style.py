"""The mean style of training: of all ranks, kept by checkpoints, untouched by updates that were not made. Ranks: test_speakers.py."""

import pytest
import torch

from tts.config.load import override
from tts.errors import PreemptedError
from tts.progress import Silent
from tts.training.checkpoint import Checkpoints
from tts.training.loop import train
from tts.training.preemption import StopFlag
from tts.training.step import train_step

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tiny):
    return override(tiny, {"model.style_tokens": 3, "model.style_heads": 2, "model.style_width": 8, "training.steps": 4, "training.threads": 1})


def test_the_first_update_makes_the_mean_that_of_its_batch(new_run, config):
    learner, batch = new_run(config)
    with torch.no_grad():
        weights_BHK = learner.model.train().style_of(batch.mel_BTM, batch.mel_lengths_B)
    fresh, _ = new_run(config)
    train_step(fresh, batch, config, 1)
    torch.testing.assert_close(fresh.model.style.mean_HK, weights_BHK.mean(0))


def test_an_update_that_is_not_made_leaves_it(new_run, config):
    learner, batch = new_run(config)
    batch.mel_BTM[0, 2, 3] = torch.nan
    result = train_step(learner, batch, config, 1)
    assert result.anomaly is not None
    assert torch.equal(learner.model.style.mean_HK, torch.full((2, 3), 1 / 3))
    assert int(learner.model.style.batches) == 0


def test_stopped_and_resumed_equals_the_run_that_was_not(store, config, tmp_path):
    list(train(store, config, tmp_path / "straight", progress=Silent(), stop=StopFlag()))
    stop = StopFlag()
    with pytest.raises(PreemptedError):
        for _ in train(store, config, tmp_path / "run", progress=Silent(), stop=stop):
            stop.set()
    list(train(store, config, tmp_path / "run", progress=Silent(), stop=StopFlag()))
    ours, theirs = (Checkpoints(tmp_path / name).newest(CPU)["model"] for name in ("run", "straight"))
    assert int(theirs["style.batches"]) == 4
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
