"""A device that is out of memory, as a hook plays it on the CPU and as CUDA does it: what is made again, what is said, and what stays as it was."""

import json
import logging
from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from tts.config.load import override
from tts.data.batches import longest_of
from tts.model.decoder import Decoder
from tts.progress import Silent
from tts.training.checkpoint import Checkpoints
from tts.training.device_memory import DeviceMemoryError, halved
from tts.training.loop import train
from tts.training.metrics_log import WALL_CLOCK_FIELDS, read_metrics
from tts.training.preemption import StopFlag
from tts.training.ranks import ALONE
from tts.training.run_folder import read_state
from tts.training.updates import Updates

CPU = torch.device("cpu")


@contextmanager
def small_device(frames, *, training=True, backward=False):
    """A device on which batches of more frames, padding counted, run out of memory in the middle of the network; yields the sizes that did."""
    failed = []

    def refuse(size):
        failed.append(size)
        raise torch.OutOfMemoryError("as a device says it")

    def look(module, inputs, output):
        if isinstance(module, Decoder) and module.training is training:
            size = inputs[2].shape[0] * inputs[2].shape[1]
            if size > frames and backward:
                output.mel_BTM.register_hook(lambda _gradient: refuse(size))
            elif size > frames:
                refuse(size)

    handle = register_module_forward_hook(look)
    try:
        yield failed
    finally:
        handle.remove()


@pytest.fixture(scope="module")
def config(tiny):
    """Batches of several utterances, three times as many frames as the longest has."""
    return override(tiny, {"training.steps": 4, "training.validation_interval": 4, "training.checkpoint_interval": 2})


@pytest.fixture(scope="module")
def half(store, config):
    return halved(store, store.train, config, 1).frame_budget


def flat(state):
    return json.dumps(state, default=lambda value: value.tolist() if isinstance(value, torch.Tensor) else str(value), sort_keys=True)


@pytest.mark.parametrize("backward", [False, True])
def test_the_step_is_made_again_as_if_it_had_not_been_tried(store, config, half, backward, caplog):
    """Against updates that go on from the same state, but were told by it to make batches of half the budget."""
    tried, told = Updates(store, config, ALONE), Updates(store, config, ALONE)
    with small_device(half, backward=backward) as failed, caplog.at_level(logging.WARNING):
        while not failed:
            before = deepcopy(tried.state())
            tried.make()

    assert failed[0] > half
    assert tried.tally.frame_budget_halvings == 1
    (said,) = caplog.messages
    assert f"from now on the budget is {half} frames (halving 1 of at most 3)" in said
    told.load({**before, "tally": {**before["tally"], "frame_budget_halvings": 1}})
    told.make()
    assert flat(tried.state()) == flat(told.state())


def test_a_run_goes_on_from_its_checkpoint_with_the_same_batches(store, config, half, tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    with small_device(half) as failed:
        list(train(store, config, straight, progress=Silent(), stop=StopFlag()))
        assert len(failed) == 1
        list(train(store, override(config, {"training.steps": 2}), stopped, progress=Silent(), stop=StopFlag()))
        list(train(store, config, stopped, progress=Silent(), stop=StopFlag()))
        assert len(failed) == 2, "not again after it was resumed"

    ours, theirs = (Checkpoints(run).newest(CPU) for run in (stopped, straight))
    assert flat(ours["model"]) == flat(theirs["model"])
    assert flat(ours["optimiser"]) == flat(theirs["optimiser"])
    assert read_state(stopped).totals.frame_budget_halvings == read_state(straight).totals.frame_budget_halvings == 1
    assert read_state(straight).state == "finished"


def test_an_utterance_that_does_not_fit_alone_is_named(store, config):
    utterance, frames = longest_of(store, store.train, config.model.largest_reduction_factor)
    updates = Updates(store, override(config, {"data.max_batch_size": 1}), ALONE)
    with (
        small_device(0),
        pytest.raises(DeviceMemoryError, match=r"utterance '.+' alone, of \d+ frames, does not fit; lower quality.max_seconds") as caught,
    ):
        updates.make()
    assert caught.value.exit_code == 64
    assert any(repr(identity) in str(caught.value) for identity in store.ids)

    tight = override(config, {"data.frame_budget": frames, "recovery.frame_budget_halvings": 9})
    updates = Updates(store, tight, ALONE)
    with small_device(0), pytest.raises(DeviceMemoryError) as caught:
        for _ in range(20):
            updates.make()
    assert store.ids[utterance] in str(caught.value) or "alone" in str(caught.value)
    assert updates.tally.frame_budget_halvings == 0


@pytest.mark.parametrize("allowed", [0, 1])
def test_halvings_are_bounded(store, config, allowed):
    updates = Updates(store, override(config, {"recovery.frame_budget_halvings": allowed, "data.frame_budget": 100_000}), ALONE)
    with (
        small_device(0),
        pytest.raises(DeviceMemoryError, match=rf"halved {allowed} times already \(recovery.frame_budget_halvings allows {allowed}\)"),
    ):
        updates.make()
    assert updates.tally.frame_budget_halvings == allowed


def test_the_longest_utterance_always_fits_the_budget(store, config):
    _, frames = longest_of(store, store.train, config.model.largest_reduction_factor)
    budgets = [halved(store, store.train, config, halvings).frame_budget for halvings in range(12)]
    assert budgets[0] == config.data.frame_budget
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[-1] == frames


def test_validations_too_make_their_batches_shorter_and_measure_the_same(store, config, tmp_path):
    frames = longest_of(store, store.held_out, config.model.largest_reduction_factor)[1]
    budget = max(len(store.held_out) * frames, longest_of(store, store.train, config.model.largest_reduction_factor)[1])
    config = override(config, {"model.prenet_dropout_at_inference": False, "data.frame_budget": budget})
    straight, run = tmp_path / "straight", tmp_path / "run"
    list(train(store, config, straight, progress=Silent(), stop=StopFlag()))
    half = halved(store, store.held_out, config, 1).frame_budget
    with small_device(half, training=False) as failed:
        list(train(store, config, run, progress=Silent(), stop=StopFlag()))
    assert len(failed) == 1

    tally = Checkpoints(run).newest(CPU)["tally"]
    assert (tally["frame_budget_halvings"], tally["validation_halvings"]) == (0, 1)
    ours, theirs = ([line for line in read_metrics(one / "metrics.jsonl") if line["kind"] == "validation"] for one in (run, straight))
    for mine, line in zip(ours, theirs, strict=True):
        expected = {name: value for name, value in line.items() if name not in ("kind", *WALL_CLOCK_FIELDS)}
        assert {name: mine[name] for name in expected} == pytest.approx(expected, rel=1e-4, nan_ok=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_that_runs_out_trains_on_with_half_the_frames(store, tiny, tmp_path):
    """What a run of half the budget takes at most is all that this process gets."""
    wide = override(tiny, {"model.decoder_lstm": 512, "model.postnet_channels": 512, "training.device": "cuda", "data.frame_budget": 100_000})
    device = torch.device("cuda")
    torch.cuda.reset_peak_memory_stats(device)
    list(train(store, override(wide, {"data.frame_budget": 50_000 // 32}), tmp_path / "small", progress=Silent(), stop=StopFlag()))
    enough = torch.cuda.max_memory_reserved(device)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 1.1 * enough / torch.cuda.get_device_properties(device).total_memory), device)
    try:
        list(train(store, override(wide, {"recovery.frame_budget_halvings": 9}), tmp_path / "run", progress=Silent(), stop=StopFlag()))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    state = read_state(tmp_path / "run")
    assert (state.state, state.step) == ("finished", tiny.training.steps)
    assert state.totals.frame_budget_halvings > 0
