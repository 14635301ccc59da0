"""A reduction factor that falls in the course of training: who reads it has that of its step. Resuming is in test_loop.py."""

import logging

import pytest
import torch

from tts.config.load import override
from tts.data.batches import TrainingBatches
from tts.diagnostics.run_record import read_snapshot
from tts.evaluation.synthesis import synthesise
from tts.losses.gate import gate_loss
from tts.progress import Silent
from tts.training.checkpoint import Checkpoints, load_model
from tts.training.loop import train
from tts.training.metrics_log import read_metrics
from tts.training.preemption import StopFlag
from tts.training.ranks import ALONE
from tts.training.step import train_step
from tts.training.updates import Updates
from tts.training.validation import snapshot_path

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tiny):
    """4 frames a step, then 3, then 2."""
    knobs = {"model.reduction_factor": 2, "model.initial_reduction_factor": 4, "training.reduction_interval": 2, "training.steps": 6}
    return override(tiny, {**knobs, "training.validation_interval": 2, "training.checkpoint_interval": 2, "training.keep_checkpoints": 9})


@pytest.fixture(scope="module")
def run(store, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradual") / "run"
    list(train(store, config, folder, progress=Silent(), stop=StopFlag()))
    return folder


def with_checkpoints_up_to(step, run, folder):
    """The run as it was then."""
    checkpoints = Checkpoints(folder)
    for entry in Checkpoints(run).index().checkpoints:
        if entry.step <= step:
            checkpoints.save(entry.step, Checkpoints(run).read(entry, CPU), mel_loss=None, keep=9)
    return folder


def test_each_line_names_the_factor_of_its_step(run):
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["reduction_factor"] for line in lines] == [4, 4, 3, 3, 2, 2]


@pytest.mark.parametrize(("step", "factor"), [(2, 4), (4, 3), (6, 2)])
def test_a_checkpoint_speaks_with_the_factor_it_was_trained_with(run, config, tmp_path, step, factor):
    loaded = load_model(with_checkpoints_up_to(step, run, tmp_path / "run"))
    assert loaded.step == step
    knobs = config.synthesis.model_copy(update={"gate_threshold": 1 - 1e-7, "max_frames_per_symbol": 6.0})
    (utterance,) = next(synthesise(loaded.model, [[5, 6, 7, 1]], knobs, CPU))
    assert len(utterance.mel_TM) == 24
    assert len(utterance.alignment_SN) == 24 // factor


@pytest.mark.parametrize(("step", "factor"), [(2, 4), (4, 3), (6, 2)])
def test_validations_and_snapshots_have_the_factor_of_their_step(run, store, config, tmp_path, step, factor):
    snapshot = read_snapshot(snapshot_path(run, step))
    assert snapshot.reduction_factor == factor
    assert snapshot.step_lengths_B.tolist() == [-(-length // factor) for length in snapshot.mel_lengths_B]
    (line,) = [line for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "validation" and line["step"] == step]
    loaded = load_model(with_checkpoints_up_to(step, run, tmp_path / "run"))
    batch = TrainingBatches(store, store.held_out, config.data.model_copy(update={"frame_budget": 10**6}), factor, 0).batch(0)
    loaded.model.decoder.prenet.dropout_at_inference = False
    with torch.no_grad():
        output = loaded.model(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B)
    plain = gate_loss(output.gate_logits_BT, batch.mel_lengths_B, reduction_factor=factor, positive_weight=1.0)
    assert line["gate_loss"] == pytest.approx(float(plain), rel=0.05), "but for the prenet's dropout"


def test_what_no_step_writes_any_more_stays_bit_for_bit_as_it_was(run):
    """Neither Adam's mean of past gradients nor the weight decay moves it on."""
    contents = {entry.step: Checkpoints(run).read(entry, CPU) for entry in Checkpoints(run).index().checkpoints}
    out_of_use = {"decoder.early_mel.1.weight": 2, "decoder.early_gate.1.bias": 2, "decoder.early_mel.0.weight": 4, "decoder.early_gate.0.weight": 4}
    for name, since in out_of_use.items():
        weights = {step: content["model"][name] for step, content in contents.items()}
        assert all(torch.equal(weights[step], weights[since]) for step in contents if step >= since), name
        if since == 4:
            assert not torch.equal(weights[2], weights[4]), name
    names = [name for name, _ in load_model(run).model.named_parameters()]
    counted = {names[place]: int(state["step"]) for place, state in contents[6]["optimiser"]["state"].items()}
    assert {name: counted[name] for name in out_of_use} == out_of_use
    assert counted["decoder.mel.weight"] == 6


def test_the_order_of_batches_does_not_hang_on_the_factor_of_a_step(store, config):
    """One plan, by the largest factor, so that a budget holds in all of the run and a resumed one need not know where the factor fell."""
    updates = Updates(store, config, ALONE)
    plan = TrainingBatches(store, store.train, config.data, 4, config.training.seed)
    for step in range(6):
        _, batch = updates.make()
        assert batch.ids == plan.batch(step).ids
        assert batch.mel_BTM.shape[1] % 4 == 0


def test_a_step_has_its_factor_whatever_the_one_before_had(new_run, config):
    learner, batch = new_run(config)
    weights = {name: value.clone() for name, value in learner.model.state_dict().items()}
    results = {}
    for step in (5, 1, 3):
        learner.model.load_state_dict(weights)
        learner.optimiser.state.clear()
        results[step] = train_step(learner, batch, config, step)
    assert {step: result.reduction_factor for step, result in results.items()} == {1: 4, 3: 3, 5: 2}
    assert len({float(result.loss) for result in results.values()}) == 3


def test_a_schedule_longer_than_the_run_is_said(store, config, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        next(train(store, override(config, {"training.steps": 4}), tmp_path / "run", progress=Silent(), stop=StopFlag()))
    assert "4 steps end at 3 frames a decoder step; to come down to 2 takes 5, or a smaller training.reduction_interval" in caplog.text
