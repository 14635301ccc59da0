"""Training on two speakers: resuming, ranks (with styles, too), checkpoints, and what is refused or said."""

import logging

import pytest
import torch

from tests.training import rank_processes as processes
from tts.config.load import override
from tts.data.batches import TrainingBatches
from tts.data.store import FeatureStore
from tts.errors import PreemptedError, UsageError
from tts.progress import Silent
from tts.training.checkpoint import Checkpoints, load_model
from tts.training.loop import train
from tts.training.preemption import StopFlag
from tts.training.ranks import ALONE

CPU = torch.device("cpu")
TABLE = "speaker.table.weight"


@pytest.fixture(scope="module")
def voices(voices_features):
    return FeatureStore.open(voices_features)


@pytest.fixture(scope="module")
def config(tiny):
    return override(tiny, {"model.speaker_embedding": 6, "training.steps": 4, "training.validation_interval": 2, "training.checkpoint_interval": 2})


@pytest.fixture(scope="module")
def straight(voices, config, tmp_path_factory):
    run = tmp_path_factory.mktemp("speakers") / "run"
    list(train(voices, config, run, progress=Silent(), stop=StopFlag()))
    return run


def test_a_batch_says_who_speaks(voices, config):
    batch = TrainingBatches(voices, voices.train, config.data, 5, 0).batch(0)
    assert [voices.speakers[number] for number in batch.speakers_B] == [voices.speaker(voices.ids.index(name)) for name in batch.ids]


def test_both_vectors_are_learnt(voices, config, straight):
    learnt = Checkpoints(straight).newest(CPU)["model"][TABLE]
    torch.manual_seed(config.training.seed)
    assert learnt.shape == (2, 6)
    first = Checkpoints(straight).read(Checkpoints(straight).index().checkpoints[0], CPU)["model"][TABLE]
    assert (learnt - first).abs().amin(1).max() > 0


def test_stopped_and_resumed_equals_the_run_that_was_not(voices, config, straight, tmp_path):
    stop, run = StopFlag(), tmp_path / "run"
    with pytest.raises(PreemptedError):
        for _ in train(voices, config, run, progress=Silent(), stop=stop):
            stop.set()
    list(train(voices, config, run, progress=Silent(), stop=StopFlag()))
    ours, theirs = (Checkpoints(folder).newest(CPU)["model"] for folder in (run, straight))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_two_ranks_make_the_updates_of_one(voices_features, config, tmp_path):
    """In float64, with styles as well; a rank may have one speaker only, and with batches of one utterance the second has nobody at all."""
    knobs = {f"model.{name}_dropout": 0.0 for name in ("encoder", "attention", "prenet", "decoder", "postnet")}
    knobs |= {"model.style_tokens": 3, "model.style_heads": 2, "model.style_width": 8}
    values = [override(config, knobs | {"data.max_batch_size": size}).model_dump(mode="json") for size in (3, 1)]
    (tmp_path / "together").mkdir()
    processes.updates(ALONE, voices_features, values, 3, tmp_path)
    processes.run(2, processes.updates, voices_features, values, 3, tmp_path / "together")
    for case in range(2):
        weights, gradients = processes.left(tmp_path, case, 0)
        assert int(weights["style.batches"]) == 3
        for rank in range(2):
            ours = processes.left(tmp_path / "together", case, rank)
            for name, value in weights.items():
                torch.testing.assert_close(ours[0][name], value, rtol=0, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
            for step in range(3):
                for name in (TABLE, "style.tokens", "style.reference.norms.0.weight"):
                    torch.testing.assert_close(ours[1][step][name], gradients[step][name], rtol=0, atol=1e-10)


def test_a_checkpoint_knows_the_names(voices, tiny, straight, tmp_path):
    assert load_model(straight).speakers == ("mila", "viktor")
    list(train(voices, override(tiny, {"training.steps": 1}), tmp_path / "run", progress=Silent(), stop=StopFlag()))
    assert load_model(tmp_path / "run").speakers == ()


def test_one_voice_for_two_speakers_is_said(voices, tiny, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        next(train(voices, override(tiny, {"training.steps": 1}), tmp_path / "run", progress=Silent(), stop=StopFlag()))
    assert "the features hold 2 speakers and model.speaker_embedding is 0: one voice is trained on all of them" in caplog.text


def test_an_embedding_of_one_speaker_is_refused_before_anything_is_done(store, config, tmp_path):
    with pytest.raises(UsageError, match=r"model\.speaker_embedding is 6, but feature store .* holds no names of speakers; set it to 0, or prepare"):
        next(train(store, config, tmp_path / "run", progress=Silent(), stop=StopFlag()))
    assert not (tmp_path / "run").exists()
