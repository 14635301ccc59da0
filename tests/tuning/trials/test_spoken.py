import math

import numpy as np
import pytest
import torch

from tts.config.load import override
from tts.data.store import FeatureStore
from tts.evaluation.metrics import mel_cepstral_distortion
from tts.model.output import Synthesis
from tts.model.tacotron2 import Tacotron2
from tts.training.checkpoint import load_model
from tts.training.metrics_log import read_metrics
from tts.training.preemption import StopFlag
from tts.tuning.trials.free_running import FREE_RUNNING_METRICS, is_free_running
from tts.tuning.trials.spoken import measures, speaking
from tts.tuning.trials.trial import Work, load_trial_server, run_trial

SYMBOLS, RECORDED, MELS = 10, 40, 80


@pytest.fixture
def recording():
    return np.random.default_rng(0).normal(size=(RECORDED, MELS)).astype(np.float32)


def voice(frames, recording, *, stopped=True, **changed):
    """Says the recording, as far as it goes, its attention on the diagonal: one decoder step to a frame."""
    mel = np.resize(recording, (max(frames, RECORDED), MELS))[:frames]
    alignment = torch.zeros(1, frames, SYMBOLS)
    alignment[0, torch.arange(frames), torch.arange(frames) * SYMBOLS // frames] = 1
    said = {"mel_BTM": torch.from_numpy(mel)[None], "alignment_BSN": alignment, **changed}
    return Synthesis(lengths_B=torch.tensor([frames]), gate_BT=torch.zeros(1, frames), stopped_B=torch.tensor([stopped]), **said)


def measured(spoken, recording):
    (row,) = measures(spoken, torch.tensor([SYMBOLS]), [recording])
    assert tuple(row) == FREE_RUNNING_METRICS
    return row


def test_a_perfect_voice(recording):
    expected = {"free_diagonality": 1, "free_coverage": 1, "free_stopped_share": 1, "free_duration_error": 0, "free_mcd": 0}

    assert measured(voice(RECORDED, recording), recording) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("frames", "stopped", "diagonality", "error"), [(20, True, 0.5, 0.5), (50, True, 0.8, 0.25), (80, False, 0.5, 1.0)])
def test_a_voice_of_another_length_pays_for_it(recording, frames, stopped, diagonality, error):
    row = measured(voice(frames, recording, stopped=stopped), recording)

    assert (row["free_duration_error"], row["free_stopped_share"]) == (error, stopped)
    assert row["free_diagonality"] == pytest.approx(diagonality)  # by hand: all mass is on the diagonal, times the ratio of durations
    assert row["free_mcd"] == pytest.approx(mel_cepstral_distortion(recording, np.resize(recording, (frames, MELS))))


def test_a_voice_that_breaks_off_at_once_has_no_good_score_but_that_it_stopped(recording):
    row = measured(voice(1, recording), recording)

    assert row["free_diagonality"] < 0.05
    assert row["free_coverage"] == pytest.approx(1 / SYMBOLS)
    assert row["free_duration_error"] > 0.95


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_an_utterance_that_is_not_finite_has_no_score_at_all(recording, broken):
    mel = torch.from_numpy(recording.copy())[None]
    mel[0, 7, 3] = broken
    alignment = voice(RECORDED, recording).alignment_BSN.clone()
    alignment[0, 5, 5] = broken

    for spoken in (voice(RECORDED, recording, mel_BTM=mel), voice(RECORDED, recording, alignment_BSN=alignment)):
        assert all(math.isnan(value) for value in measured(spoken, recording).values())


@pytest.fixture
def store(features):
    return FeatureStore.open(features)


def test_a_networks_measures_are_the_mean_over_the_utterances_in_any_batches(store, trained, base, monkeypatch):
    """The network, its mode and torch's random state stay as they are."""
    network = load_model(trained).model
    network.train()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()

    together = speaking(store, override(base, {"tuning.free_running_utterances": 3}), StopFlag())(network)
    monkeypatch.setattr("tts.tuning.trials.spoken.BATCH", 1)
    alone = speaking(store, override(base, {"tuning.free_running_utterances": 3}), StopFlag())(network)
    first = speaking(store, override(base, {"tuning.free_running_utterances": 1}), StopFlag())(network)

    assert tuple(together) == FREE_RUNNING_METRICS
    assert together == pytest.approx(alone, rel=1e-4)
    assert together != pytest.approx(first, rel=1e-4)
    assert all(math.isfinite(value) for value in together.values())
    assert 0 <= together["free_duration_error"] <= 1
    assert network.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())


def test_a_network_that_is_not_finite_has_no_score(store, base):
    network = Tacotron2(base.model, symbols=len(store.symbol_table), mels=base.audio.mels)
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, math.nan)

    assert all(math.isnan(value) for value in speaking(store, base, StopFlag())(network).values())


def test_a_trial_speaks_where_the_objective_wants_it_and_else_saves_the_time(base, features, tmp_path):
    load_trial_server()
    budget = {"training.steps": 4, "training.validation_interval": 2, "training.checkpoint_interval": 2}
    plain = override(base, budget)
    speaks = override(plain, {"tuning.objective": [{"metric": "mel_loss"}, {"metric": "free_mcd", "scale": 10}]})
    seen = {}
    for name, config in (("plain", plain), ("speaks", speaks)):
        told = seen[name] = {}
        work = Work(features, tmp_path / name, tmp_path / "locks" / name, config, workers=1)
        assert run_trial(work, lambda step, metrics, told=told: bool(told.update({step: metrics})), StopFlag()) == "finished"

    assert (is_free_running(plain), is_free_running(speaks)) == (False, True)
    assert list(seen["speaks"]) == [2, 4]
    for step, metrics in seen["speaks"].items():
        spoken = {name: metrics[name] for name in FREE_RUNNING_METRICS}
        assert all(math.isfinite(value) for value in spoken.values())
        assert metrics == seen["plain"][step] | spoken
        (line,) = [line for line in read_metrics(tmp_path / "speaks" / "metrics.jsonl") if (line["kind"], line["step"]) == ("validation", step)]
        assert line["free_mcd"] == spoken["free_mcd"]
