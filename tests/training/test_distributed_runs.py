"""Whole runs of several processes: how they stop, what they leave, and with how many they go on."""

import json
import signal

import pytest
import torch

from tests.training import rank_processes as processes
from tts.config.load import override
from tts.errors import PreemptedError, TrainingDivergedError, UsageError
from tts.progress import Silent
from tts.training.checkpoint import Checkpoints
from tts.training.joining import ALONE_PLACE, Place, TooFewDevicesError, joined, place_from_environment, take_device
from tts.training.loop import train
from tts.training.metrics_log import WALL_CLOCK_FIELDS, read_metrics
from tts.training.preemption import StopFlag
from tts.training.ranks import ALONE
from tts.training.recovery.abandoned import read_restarts
from tts.training.run_folder import read_state

CPU = torch.device("cpu")
WITHOUT_DROPOUT = {f"model.{name}_dropout": 0.0 for name in ("encoder", "attention", "prenet", "decoder", "postnet")}


@pytest.fixture(scope="module")
def config(tiny):
    """The reduction factor falls in the course of it."""
    knobs = {"training.steps": 7, "training.validation_interval": 3, "training.checkpoint_interval": 4, "data.frame_budget": 3000}
    falling = {"model.initial_reduction_factor": 7, "training.reduction_interval": 2}
    return override(tiny, WITHOUT_DROPOUT | knobs | falling)


@pytest.fixture(scope="module")
def straight(store, config, tmp_path_factory):
    """The run of one process."""
    run = tmp_path_factory.mktemp("straight") / "run"
    assert [record.step for record in train(store, config, run, progress=Silent(), stop=StopFlag())] == [3, 6, 7]
    return run


def go(ranks, store, config, run, acts=None):
    return processes.run(ranks, processes.whole_run, store.folder, config.model_dump(mode="json"), run, acts)


def assert_same(run, other):
    """Up to the rounding of float32."""
    ours, theirs = (read_metrics(one / "metrics.jsonl") for one in (run, other))
    assert [(line["kind"], line["step"]) for line in ours] == [(line["kind"], line["step"]) for line in theirs]
    for mine, line in zip(ours, theirs, strict=True):
        expected = {name: value for name, value in line.items() if name not in ("kind", *WALL_CLOCK_FIELDS)}
        assert {name: mine[name] for name in expected} == pytest.approx(expected, rel=1e-3, nan_ok=True)
    weights, expected = (Checkpoints(one).newest(CPU)["model"] for one in (run, other))
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=2e-3, msg=lambda text, name=name: f"{name}: {text}")


def test_two_processes_leave_the_run_of_one(straight, store, config, tmp_path):
    steps, code = go(2, store, config, tmp_path / "run")

    assert (steps, code) == ([3, 6, 7], 0)
    assert_same(tmp_path / "run", straight)
    state = read_state(tmp_path / "run")
    assert (state.state, state.step, state.ranks) == ("finished", 7, 2)
    assert read_state(straight).ranks == 1
    assert sorted(path.relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*")) == sorted(
        path.relative_to(straight) for path in straight.rglob("*")
    )


@pytest.mark.slow
def test_a_signal_to_any_rank_stops_all_and_another_number_goes_on(straight, store, config, tmp_path):
    run = tmp_path / "run"
    leader, *codes = go(3, store, config, run, {2: (2, signal.SIGTERM)})

    assert leader[0] == "PreemptedError"
    assert codes == [PreemptedError.exit_code] * 2
    stopped = read_state(run)
    assert (stopped.state, stopped.ranks) == ("preempted", 3)
    assert Checkpoints(run).newest(CPU)["step"] == stopped.step
    assert stopped.step in (2, 3), "the signal was sent in the second step"
    assert go(2, store, config, run)[1] == 0
    assert_same(run, straight)


@pytest.mark.parametrize(("interval", "kind", "code"), [(1, "ShortOfMemoryError", 75), (4, "TooLittleMemoryError", 64)])
def test_all_stop_where_memory_is_short(store, config, tmp_path, interval, kind, code):
    knobs = {"recovery.memory_share": 1e-9, "training.checkpoint_interval": interval}
    leader, other = go(2, store, override(config, knobs), tmp_path / "run")

    assert (leader[0], other) == (kind, code)
    assert leader[1].startswith("memory is short: ")
    assert (read_state(tmp_path / "run").state, read_state(tmp_path / "run").step) == ("preempted", 1)


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_others_and_one_process_goes_on(straight, store, config, tmp_path):
    run = tmp_path / "run"
    leader, killed, other = go(3, store, config, run, {5: (1, signal.SIGKILL)})

    assert killed is None
    for told in (leader, other):
        assert told[0] == "LostRankError"
        assert "the same command goes on from the last checkpoint" in told[1]
    assert Checkpoints(run).newest(CPU)["step"] == 4
    list(train(store, config, run, progress=Silent(), stop=StopFlag()))
    assert_same(run, straight)


def test_rank_0_that_is_killed_ends_the_others(store, config, tmp_path):
    killed, other = go(2, store, config, tmp_path / "run", {5: (0, signal.SIGKILL)})

    assert killed is None
    assert other[0] == "LostRankError"


def test_a_caller_that_leaves_takes_all_along(store, config, tmp_path):
    assert go(2, store, config, tmp_path / "run", {3: "leave"}) == [[3], 0]
    assert (read_state(tmp_path / "run").state, read_state(tmp_path / "run").step) == ("stopped", 3)


def test_where_rank_0_cannot_begin_the_others_end_quietly(straight, store, config, tmp_path):
    (tmp_path / "features.json").write_text("{}")
    leader, code = go(2, store, config, tmp_path)
    assert (leader[0], code) == ("UsageError", 0)

    leader, code = go(2, store, override(config, {"model.prenet": 16}), straight)
    assert (leader[0], code) == ("UsageError", 0)
    assert "model.prenet is 16, the run has 12" in leader[1]


def test_all_diverge_together(damaged_store, config, tmp_path):
    """Every batch holds the utterance that is damaged."""
    knobs = override(config, {"recovery.max_skipped_updates": 2, "recovery.remedies": [], "data.frame_budget": 100_000})
    leader, code = go(2, damaged_store, knobs, tmp_path / "run")

    assert leader[0] == "TrainingDivergedError"
    assert code == TrainingDivergedError.exit_code
    assert (read_state(tmp_path / "run").state, read_state(tmp_path / "run").step) == ("diverged", 2)
    record = json.loads((tmp_path / "run" / "anomalies" / "step-00000002.json").read_text())
    assert record["utterances"] == [damaged_store.ids[damaged_store.train[0]]]
    assert sorted(record["batch"]) == sorted(damaged_store.ids[index] for index in damaged_store.train)


def test_all_go_back_together(damaged_store, config, tmp_path):
    """One process and two: the same restart, the same remedy, the same steps after it."""
    knobs = {"recovery.max_skipped_updates": 1, "recovery.probation_steps": 1, "data.frame_budget": 1200, "training.steps": 6}
    knobs = override(config, knobs)
    list(train(damaged_store, knobs, tmp_path / "one", progress=Silent(), stop=StopFlag()))
    assert go(2, damaged_store, knobs, tmp_path / "two")[1] == 0
    assert read_state(tmp_path / "two").totals.restarts == 1
    assert read_restarts(tmp_path / "two") == read_restarts(tmp_path / "one")
    assert_same(tmp_path / "two", tmp_path / "one")


TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "host", "MASTER_PORT": "1"}


def test_the_environment_of_torchrun_says_where_a_process_belongs():
    assert place_from_environment(TORCHRUN) == Place(rank=1, count=4, here=2, device=1, meeting="env://")
    assert place_from_environment({}) == ALONE_PLACE
    assert place_from_environment({"RANK": "0", "WORLD_SIZE": "1"}) == ALONE_PLACE


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"RANK": "x"}, "RANK=x, WORLD_SIZE=4"),
        ({"RANK": "4"}, "RANK=4, WORLD_SIZE=4"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK=2, LOCAL_WORLD_SIZE=2"),
        ({"LOCAL_WORLD_SIZE": "5"}, "LOCAL_WORLD_SIZE=5"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(changed, message):
    with pytest.raises(UsageError, match=message):
        place_from_environment(TORCHRUN | changed)


def test_without_an_address_there_is_nobody_to_meet():
    with pytest.raises(UsageError, match="WORLD_SIZE=4 but not MASTER_PORT"):
        place_from_environment({name: value for name, value in TORCHRUN.items() if name != "MASTER_PORT"})


def test_more_processes_than_devices_are_refused():
    too_many = torch.cuda.device_count() + 1
    with pytest.raises(TooFewDevicesError, match=f"{too_many} processes train here, one a device, but torch finds {too_many - 1} CUDA devices"):
        take_device(Place(rank=0, count=too_many, here=too_many, device=0, meeting=""))


def test_one_process_meets_nobody():
    with joined(ALONE_PLACE, "cpu") as ranks:
        assert ranks.leads
        assert not ranks.together
        assert not torch.distributed.is_initialized()
    assert not ALONE.together
