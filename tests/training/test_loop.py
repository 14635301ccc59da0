"""The loop: resuming is exact, losses fall, what is not finite is skipped, and stops leave a folder that goes on."""

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from tts.config.load import override, to_json
from tts.errors import CannotWriteError, DataError, PreemptedError, TrainingDivergedError, UsageError
from tts.progress import Silent
from tts.training.checkpoint import Checkpoints, load_model
from tts.training.corpus_record import corpus_record
from tts.training.loop import train
from tts.training.metrics_log import WALL_CLOCK_FIELDS, read_metrics
from tts.training.modules_log import read_modules
from tts.training.preemption import StopFlag, listen
from tts.training.run_folder import read_state
from tts.training.saturation import SATURATION_FIELDS
from tts.training.validation import past_records, validation_metrics

CPU = torch.device("cpu")
STEPS = 7


class AtStep:
    """Progress that calls `act` as the run arrives at a step: the way for a test to be in the middle of training."""

    def __init__(self, step, act):
        self.step, self.act, self.done = step, act, 0

    @contextmanager
    def task(self, _title, total, done=0):
        assert total >= done
        self.done = done
        yield self

    def advance(self, steps=1, **_figures):
        self.done += steps
        if self.done == self.step:
            self.act()


@pytest.fixture(scope="module")
def config(tiny):
    """Validations and checkpoints that do not coincide, lines that are not in each step, a reduction factor that falls twice: 7 7 6 6 5 5 5.

    With a coarse decoder and a recogniser, and frames that drop out.
    """
    knobs = {"steps": STEPS, "validation_interval": 3, "checkpoint_interval": 4, "log_interval": 2, "keep_checkpoints": 2, "reduction_interval": 2}
    network = {"initial_reduction_factor": 7, "coarse_reduction_factor": 9, "recogniser": 8, "frame_drop": 0.2}
    return override(
        tiny, {**{f"model.{name}": value for name, value in network.items()}, **{f"training.{name}": value for name, value in knobs.items()}}
    )


@pytest.fixture(scope="module")
def straight(store, config, tmp_path_factory):
    """The run that nobody stopped."""
    run = tmp_path_factory.mktemp("straight") / "run"
    assert [record.step for record in _train(store, config, run)] == [3, 6, 7]
    return run


def _train(store, config, run, progress=None, stop=None):
    return list(train(store, config, run, progress=progress or Silent(), stop=StopFlag() if stop is None else stop))


def _metrics(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in WALL_CLOCK_FIELDS} for line in lines]


def _flat(value, path=""):
    if isinstance(value, dict):
        return {name: leaf for key, part in value.items() for name, leaf in _flat(part, f"{path}/{key}").items()}
    if isinstance(value, list):
        return {name: leaf for number, part in enumerate(value) for name, leaf in _flat(part, f"{path}/{number}").items()}
    return {path: value}


def _assert_same(run, other):
    ours, theirs = (_flat(Checkpoints(one).newest(CPU)) for one in (run, other))
    assert ours.keys() == theirs.keys()
    tensors = [name for name, value in ours.items() if isinstance(value, torch.Tensor)]
    assert len(tensors) > 50
    for name, value in ours.items():
        if name != "/tally/seconds":
            same = torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]
            assert same, name
    assert _metrics(run) == _metrics(other)
    assert read_modules(run / "modules.jsonl") == read_modules(other / "modules.jsonl")
    assert Checkpoints(run).index().best == Checkpoints(other).index().best
    for path in sorted((other / "snapshots").iterdir()):
        with np.load(path) as file, np.load(run / "snapshots" / path.name) as mine:
            assert all(np.array_equal(mine[name], array) for name, array in file.items())
    assert len(list((run / "snapshots").iterdir())) == len(list((other / "snapshots").iterdir()))


def test_what_a_run_leaves_behind(straight, store, config):
    assert json.loads((straight / "config.json").read_text()) == json.loads(to_json(config))
    state = read_state(straight)
    assert (state.state, state.step, state.fingerprint, state.language) == ("finished", STEPS, store.fingerprint, "en")
    assert state.totals.skipped_updates == 0
    assert [(line["kind"], line["step"]) for line in read_metrics(straight / "metrics.jsonl")] == [
        ("train", 1), ("train", 2), ("validation", 3), ("train", 4), ("train", 6), ("validation", 6), ("validation", 7),
    ]  # fmt: skip
    assert json.loads((straight / "corpus.json").read_text()) == corpus_record(store)
    (validated,) = [line for line in read_metrics(straight / "metrics.jsonl") if (line["kind"], line["step"]) == ("validation", 6)]
    assert all(0 <= validated[name] < 1 for name in SATURATION_FIELDS)
    assert all(record.metrics.keys() == set(validation_metrics(config.model)) for record in past_records(straight))
    modules = read_modules(straight / "modules.jsonl")
    assert [line["step"] for line in modules] == [1, 2, 4, 6]
    assert all(norm > 0 for line in modules for norm in line["gradient_norm"].values())
    assert all(0 < ratio < 1 for line in modules for ratio in line["update_ratio"].values())
    assert sorted(path.name for path in (straight / "snapshots").iterdir()) == [f"step-{step:08d}.npz" for step in (3, 6, 7)]
    assert [entry.step for entry in Checkpoints(straight).index().checkpoints][-1] == STEPS
    assert not list((straight / "anomalies").glob("*"))
    assert [path for path in straight.rglob(".*") if path.name != ".lock"] == []


def test_lines_name_losses_norm_rate_speed_and_skipped_updates(straight, config):
    line = next(line for line in read_metrics(straight / "metrics.jsonl") if line["kind"] == "train")
    weights = {
        "mel_before": 1,
        "mel_after": 1,
        "gate": config.losses.gate_weight,
        "guided_attention": config.guided_attention.weight,
        "coarse_mel": 1,
        "coarse_gate": config.losses.gate_weight,
        "consistency": 1,
        "mutual_information": 1,
    }
    further = {"left_out_utterances", "mutual_information_scale"}
    rest = {"loss", "gradient_norm", "learning_rate", "reduction_factor", "skipped_updates", "kind", "step"}
    assert line.keys() == weights.keys() | further | rest | set(WALL_CLOCK_FIELDS)
    parts = [line[f"{part}_seconds"] for part in ("data", "forward", "backward", "update")]
    assert all(seconds > 0 for seconds in parts)
    assert sum(parts) <= line["seconds"]
    assert 0 < line["mutual_information_scale"] <= 1
    assert line["loss"] == pytest.approx(sum(weight * line[name] for name, weight in weights.items()), rel=1e-5)
    assert line["learning_rate"] == pytest.approx(config.optimiser.learning_rate / config.optimiser.warmup_steps)


def test_the_same_configuration_gives_the_same_run(straight, store, config, tmp_path):
    _train(store, config, tmp_path / "run")
    _assert_same(tmp_path / "run", straight)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_stopped_by_sigterm_and_resumed_equals_the_run_that_was_not(straight, store, config, tmp_path, step):
    run = tmp_path / "run"
    with listen() as stop, pytest.raises(PreemptedError, match=f"step {step}"):
        _train(store, config, run, AtStep(step, lambda: os.kill(os.getpid(), signal.SIGTERM)), stop)
    state = read_state(run)
    assert (state.state, state.step) == ("preempted", step)
    assert Checkpoints(run).newest(CPU)["step"] == step
    _train(store, config, run)
    _assert_same(run, straight)
    assert read_state(run).state == "finished"


def test_stopped_after_every_single_step_equals_the_run_that_was_not(straight, store, config, tmp_path):
    run = tmp_path / "run"
    for step in range(1, STEPS + 1):
        stop = StopFlag()
        with pytest.raises(PreemptedError):
            _train(store, config, run, AtStep(step, stop.set), stop)
    _train(store, config, run)
    _assert_same(run, straight)


@pytest.mark.parametrize("step", [3, STEPS])
def test_killed_between_a_validation_that_was_made_up_for_and_its_checkpoint(straight, store, config, tmp_path, step):
    """The checkpoint was written when the run was stopped before the validation; the line is in the log, and nothing else knows of it."""
    run, stop = tmp_path / "run", StopFlag()
    with pytest.raises(PreemptedError):
        _train(store, config, run, AtStep(step, stop.set), stop)
    lines = (straight / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(line for line in lines if json.loads(line)["step"] <= step))
    assert [record.step for record in _train(store, config, run)] == [due for due in (3, 6, 7) if due >= step]
    _assert_same(run, straight)
    newest, wanted = (Checkpoints(one).index().checkpoints[-1] for one in (run, straight))
    assert newest.mel_loss == wanted.mel_loss


def test_ctrl_c_checkpoints_and_interrupts(straight, store, config, tmp_path):
    run = tmp_path / "run"
    with listen() as stop, pytest.raises(KeyboardInterrupt):
        _train(store, config, run, AtStep(5, lambda: os.kill(os.getpid(), signal.SIGINT)), stop)
    assert (read_state(run).state, Checkpoints(run).newest(CPU)["step"]) == ("interrupted", 5)
    _train(store, config, run)
    _assert_same(run, straight)


def test_an_interrupt_in_the_middle_of_a_step_goes_back_to_the_checkpoint(straight, store, config, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        _train(store, config, run, AtStep(6, interrupt))
    assert (read_state(run).state, Checkpoints(run).newest(CPU)["step"]) == ("interrupted", 4)
    _train(store, config, run)
    _assert_same(run, straight)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from tts.config.load import read_config
from tts.data.store import FeatureStore
from tts.progress import Silent
from tts.training.loop import train
from tts.training.preemption import StopFlag
from contextlib import contextmanager

class Kill:
    @contextmanager
    def task(self, title, total, done=0):
        self.done = done
        yield self
    def advance(self, steps=1, **figures):
        self.done += steps
        if self.done == 5:
            os.kill(os.getpid(), signal.SIGKILL)

features, run, config = map(Path, sys.argv[1:])
list(train(FeatureStore.open(features), read_config(config), run, progress=Kill(), stop=StopFlag()))
"""


def test_killed_and_resumed_equals_the_run_that_was_not(straight, store, config, tmp_path):
    run, knobs = tmp_path / "run", tmp_path / "config.json"
    knobs.write_text(to_json(config))
    killed = subprocess.run([sys.executable, "-c", KILLED, store.folder, run, knobs], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert (read_state(run).state, Checkpoints(run).newest(CPU)["step"]) == ("running", 4)
    # What a kill in the middle of a write leaves.
    (run / "checkpoints" / ".step-00000008.pt.abcdefgh.partial").write_bytes(b"half")
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "train", "step": 6, "lo')
    _train(store, config, run)
    _assert_same(run, straight)
    assert not (run / "checkpoints" / ".step-00000008.pt.abcdefgh.partial").exists()


def test_a_damaged_newest_checkpoint_costs_its_steps_and_no_more(straight, store, config, tmp_path, caplog):
    run = tmp_path / "run"
    stop = StopFlag()
    with pytest.raises(PreemptedError):
        _train(store, config, run, AtStep(5, stop.set), stop)
    newest = run / "checkpoints" / "step-00000005.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        _train(store, config, run)
    assert "step-00000005.pt is damaged" in caplog.text
    _assert_same(run, straight)


def test_a_caller_may_leave_and_come_back(straight, store, config, tmp_path):
    run = tmp_path / "run"
    with closing(train(store, config, run, progress=Silent(), stop=StopFlag())) as records:
        assert next(records).step == 3
    assert read_state(run).state == "stopped"
    assert [record.step for record in _train(store, config, run)] == [6, 7]
    assert [record.step for record in past_records(run)] == [3, 6, 7]
    _assert_same(run, straight)


def test_past_records_are_those_that_were_yielded(store, config, tmp_path):
    yielded = _train(store, config, tmp_path / "run")
    assert [(r.step, r.metrics, r.snapshot) for r in past_records(tmp_path / "run")] == [(r.step, r.metrics, r.snapshot) for r in yielded]


def test_a_finished_run_has_nothing_left_to_do_and_more_steps_go_on(store, config, tmp_path):
    run = tmp_path / "run"
    _train(store, config, run)
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file() and path.name != "run.json"}
    assert _train(store, config, run) == []
    assert {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file() and path.name != "run.json"} == before
    assert [record.step for record in _train(store, override(config, {"training.steps": 9}), run)] == [9]
    assert read_state(run).step == 9
    assert json.loads((run / "config.json").read_text())["training"]["steps"] == 9


def test_a_flag_that_is_set_before_the_first_step_stops_before_it(store, config, tmp_path):
    stop = StopFlag()
    stop.set()
    with pytest.raises(PreemptedError):
        _train(store, config, tmp_path / "run", stop=stop)
    assert read_state(tmp_path / "run").step == 0
    assert Checkpoints(tmp_path / "run").newest(CPU) is None


def test_losses_fall(store, tiny, tmp_path):
    without_dropout = {f"model.{name}_dropout": 0.0 for name in ("encoder", "attention", "prenet", "decoder", "postnet")}
    knobs = {"training.steps": 80, "training.validation_interval": 1000, "training.checkpoint_interval": 80, "optimiser.learning_rate": 1e-2}
    _train(store, override(tiny, knobs | without_dropout), tmp_path / "run")
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    # The mel before the postnet begins as the corpus's mean, which a network of this size leaves slowly.
    for name, share in {"loss": 0.6, "mel_before": 1.0, "mel_after": 0.6, "gate": 0.6}.items():
        first, last = (np.mean([line[name] for line in part]) for part in (lines[:5], lines[-5:]))
        assert last < share * first, name


def test_the_network_normalises_by_the_features_it_was_trained_on(straight, store):
    model = load_model(straight).model
    assert torch.equal(model.mel_mean_M, torch.from_numpy(store.mel_mean))
    assert torch.equal(model.mel_deviation_M, torch.from_numpy(store.mel_deviation).clamp(min=0.1))


def test_the_best_validation_is_checkpointed_at_once_and_loaded(store, tiny, tmp_path):
    """The rate is so high that the last validations are worse than the first."""
    knobs = {"steps": 12, "validation_interval": 2, "checkpoint_interval": 12, "keep_checkpoints": 1}
    config = override(
        tiny,
        {"recovery.remedies": [], "optimiser.learning_rate": 1.0, "optimiser.warmup_steps": 12, **{f"training.{k}": v for k, v in knobs.items()}},
    )
    records = _train(store, config, tmp_path / "run")
    best = min(records, key=lambda record: record.metrics["mel_loss"])
    assert best.step < 12
    assert load_model(tmp_path / "run").step == best.step
    assert [entry.step for entry in Checkpoints(tmp_path / "run").index().checkpoints] == [best.step, 12]


def test_a_clip_with_nan_costs_its_updates_and_not_the_run(damaged_store, config, tmp_path, caplog):
    run = tmp_path / "run"
    knobs = override(config, {"training.steps": 12, "training.log_interval": 1})
    with caplog.at_level(logging.WARNING):
        _train(damaged_store, knobs, run)
    clip = damaged_store.ids[damaged_store.train[0]]
    anomalies = [json.loads(path.read_text()) for path in sorted((run / "anomalies").glob("*.json"))]
    assert anomalies
    for anomaly in anomalies:
        assert (anomaly["kind"], anomaly["name"], anomaly["value"], anomaly["utterances"]) == ("input", "mel", "nan", [clip])
        assert clip in anomaly["batch"]
        assert anomaly["figures"]["loss"] == "nan"
    assert f"update skipped: input mel is nan ({clip})" in caplog.text
    assert read_state(run).totals.skipped_updates == len(anomalies)
    train_lines = [line for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "train"]
    assert train_lines[-1]["skipped_updates"] == len(anomalies)
    assert [line["step"] for line in train_lines if np.isnan(line["loss"])] == [anomaly["step"] for anomaly in anomalies]
    content = Checkpoints(run).newest(CPU)
    assert all(value.isfinite().all() for value in _flat([content["model"], content["optimiser"]]).values() if isinstance(value, torch.Tensor))
    assert all(np.isfinite(record.metrics["mel_loss"]) for record in past_records(run))


def test_skipped_updates_survive_a_stop(damaged_store, config, tmp_path):
    knobs = override(config, {"training.steps": 12})
    _train(damaged_store, knobs, tmp_path / "straight")
    for step in (2, 5, 8):
        stop = StopFlag()
        with pytest.raises(PreemptedError):
            _train(damaged_store, knobs, tmp_path / "run", AtStep(step, stop.set), stop)
    _train(damaged_store, knobs, tmp_path / "run")
    _assert_same(tmp_path / "run", tmp_path / "straight")
    assert [path.name for path in sorted((tmp_path / "run" / "anomalies").iterdir())] == [
        path.name for path in sorted((tmp_path / "straight" / "anomalies").iterdir())
    ]


def test_too_many_skipped_updates_in_a_row_are_a_divergence(store, config, tmp_path):
    knobs = override(config, {"recovery.max_skipped_updates": 3, "recovery.remedies": [], "training.steps": 50})
    without_numbers = replace(store, _mels=np.full_like(store._mels, np.nan))
    with pytest.raises(TrainingDivergedError, match=r"3 updates in a row were not finite.*at step 3: input mel is nan"):
        _train(without_numbers, knobs, tmp_path / "run")
    state = read_state(tmp_path / "run")
    assert (state.state, state.step, state.totals.skipped_updates) == ("diverged", 3, 3)
    assert len(list((tmp_path / "run" / "anomalies").glob("*.json"))) == 3


def test_a_full_disk_ends_the_run_with_the_last_checkpoint_whole(straight, store, config, tmp_path, file_size_limit):
    run = tmp_path / "run"
    size = (straight / "checkpoints" / f"step-{STEPS:08d}.pt").stat().st_size
    _train(store, override(config, {"training.steps": 4}), run)
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    with file_size_limit(size - 1000), pytest.raises(CannotWriteError, match=r"checkpoints/step-0000000\d\.pt"):
        _train(store, config, run)
    assert {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before
    for path in run.rglob("*.json"):
        json.loads(path.read_text())
    _train(store, config, run)
    assert read_state(run).state == "finished"


def test_a_read_only_folder_is_refused_before_anything_is_done(store, config, read_only_folder):
    with pytest.raises(CannotWriteError, match="no permission"):
        _train(store, config, read_only_folder / "run")


def test_a_run_of_another_configuration_is_left_as_it_is(straight, store, config):
    before = {path: path.read_bytes() for path in straight.rglob("*.*") if path.is_file()}
    with pytest.raises(UsageError, match=r"holds another run: model\.prenet is 16, the run has 12"):
        _train(store, override(config, {"model.prenet": 16}), straight)
    assert {path: path.read_bytes() for path in straight.rglob("*.*") if path.is_file()} == before


def test_features_prepared_otherwise_are_refused(store, config, tmp_path):
    with pytest.raises(UsageError, match=r"audio\.hop_length"):
        _train(store, override(config, {"audio.hop_length": 200}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_when_every_checkpoint_is_damaged_the_run_says_so(store, config, tmp_path):
    run = tmp_path / "run"
    _train(store, override(config, {"training.steps": 4}), run)
    for path in (run / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"every checkpoint in .* is damaged"):
        _train(store, config, run)


@pytest.mark.parametrize("stops_at", [None, 5])
def test_measuring_more_at_a_validation_changes_nothing_else(store, config, straight, tmp_path, stops_at):
    """Neither a measure that draws random numbers, nor a stop between two of them."""
    run, stop = tmp_path / "run", StopFlag()
    seen = []

    def measure(model):
        assert not model.training
        seen.append(float(torch.rand(())))
        return {"weight": float(next(model.parameters()).detach().sum()), "undefined": float("nan")}

    if stops_at:
        with pytest.raises(PreemptedError):
            list(train(store, config, run, progress=AtStep(stops_at, stop.set), stop=stop, measure=measure))
    yielded = list(train(store, config, run, progress=Silent(), stop=StopFlag(), measure=measure))

    extended = [line for line in _metrics(run) if line["kind"] == "validation"]
    assert [line.pop("weight") for line in extended] == [record.metrics["weight"] for record in past_records(run)]
    assert all(line.pop("undefined") is None for line in extended)
    assert all(np.isnan(record.metrics["undefined"]) for record in past_records(run))
    assert extended == [line for line in _metrics(straight) if line["kind"] == "validation"]
    assert len(seen) == 3
    assert [record.step for record in yielded] == ([6, 7] if stops_at else [3, 6, 7])
    lines = (run / "metrics.jsonl").read_text().splitlines()
    plain = [{name: value for name, value in json.loads(line).items() if name not in ("weight", "undefined")} for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in plain))
    _assert_same(run, straight)
