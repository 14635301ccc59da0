"""Checkpoints of another architecture: which tensors differ, and how."""

import re

import pytest
import torch

from tts.config.load import override
from tts.data.store import FeatureStore
from tts.errors import DataError
from tts.progress import Silent
from tts.training.checkpoint import Checkpoints, load_model
from tts.training.loop import train
from tts.training.preemption import StopFlag
from tts.training.weights import NAMED, load_weights

CPU = torch.device("cpu")


def layers(width: int, *, second: bool = True) -> torch.nn.Module:
    modules = {"first": torch.nn.Linear(3, width)} | ({"second": torch.nn.Linear(2, 2)} if second else {})
    return torch.nn.ModuleDict(modules)


def test_the_same_architecture_is_taken_over():
    model, other = layers(4), layers(4)
    load_weights(model, other.state_dict(), "x")
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("saved", "here", "named"),
    [
        (layers(5), layers(4), "first.weight is 5 x 3 there and 4 x 3 here; first.bias is 5 there and 4 here"),
        (layers(4, second=False), layers(4), "second.weight (2 x 2) is not there; second.bias (2) is not there"),
        (layers(4), layers(4, second=False), "second.weight (2 x 2) is unknown here; second.bias (2) is unknown here"),
        (
            torch.nn.BatchNorm1d(2),
            torch.nn.Linear(2, 2),
            "running_mean (2) is unknown here; running_var (2) is unknown here; num_batches_tracked (a single",
        ),
    ],
)
def test_another_one_is_refused_naming_every_tensor_and_takes_over_nothing(saved, here, named):
    before = {name: tensor.clone() for name, tensor in here.state_dict().items()}
    with pytest.raises(DataError, match=re.escape(named)):
        load_weights(here, saved.state_dict(), "checkpoint x.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in here.state_dict().items())


def test_a_network_that_is_another_altogether_names_a_few():
    many = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(20))
    with pytest.raises(DataError, match=f"and {40 - NAMED} more; use the version"):
        load_weights(torch.nn.ModuleList(), many.state_dict(), "x")


def test_neither_a_run_that_goes_on_nor_a_voice_takes_it(store: FeatureStore, tiny, tmp_path):
    """A checkpoint whose weights are not those that its configuration describes."""
    config = override(tiny, {"training.steps": 1, "training.validation_interval": 1})
    list(train(store, config, tmp_path / "run", progress=Silent(), stop=StopFlag()))
    checkpoints = Checkpoints(tmp_path / "run")
    content = checkpoints.newest(CPU)
    content["model"]["decoder.gate.bias"] = torch.zeros(7)
    checkpoints.save(content.pop("step"), content, mel_loss=0.0, keep=1)
    message = rf"decoder\.gate\.bias is 7 there and {tiny.model.reduction_factor} here"
    with pytest.raises(DataError, match=r"step-00000001\.pt holds.*" + message):
        load_model(tmp_path / "run")
    with pytest.raises(DataError, match="the checkpoint of step 1 holds.*" + message):
        list(train(store, override(config, {"training.steps": 2}), tmp_path / "run", progress=Silent(), stop=StopFlag()))
