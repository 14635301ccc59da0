import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

from tts.audio.mel import MelAnalysis
from tts.audio.silence import trim
from tts.config.load import override, to_json
from tts.data.corpus import read_corpus
from tts.data.store import FeatureStore
from tts.errors import DataError, UsageError
from tts.text import text_to_symbols

FILES = ("mels.npy", "index.npz", "texts.json", "config.json", "quality.json", "features.json")


@pytest.fixture(scope="module")
def store(features):
    return FeatureStore.open(features)


@pytest.fixture
def copy(features, tmp_path):
    return shutil.copytree(features, tmp_path / "store")


def test_every_utterance_is_what_its_clip_gives(store, corpus, tiny):
    clips = {clip.id: clip for clip in read_corpus(corpus)}
    assert list(store.ids) == list(clips)
    for place, name in enumerate(store.ids):
        samples, _ = soundfile.read(clips[name].audio, dtype="float32")
        mel = MelAnalysis(tiny.audio)(torch.from_numpy(trim(samples, tiny.audio))).numpy()
        np.testing.assert_array_equal(store.mel(place), mel)
        assert store.frames[place] == len(mel)
        encoded = text_to_symbols(clips[name].text, tiny.text)
        assert store.symbols(place).tolist() == encoded.symbols
        assert store.texts[place] == encoded.text == store.symbol_table.decode(store.symbols(place).tolist())
        assert store.original_texts[place] == clips[name].text


def test_split_is_whole_and_disjoint(store):
    assert sorted([*store.train, *store.held_out]) == list(range(20))
    assert len(store.held_out) == 3


def test_held_out_recordings_are_those_that_were_analysed(store, tiny):
    for place in store.held_out:
        samples, rate = soundfile.read(store.reference_audio(place), dtype="float32")
        assert rate == tiny.audio.sample_rate
        assert 1 + len(samples) // tiny.audio.hop_length == store.frames[place]
        mel = MelAnalysis(tiny.audio)(torch.from_numpy(samples)).numpy()
        loud = store.mel(place) > -6  # what 16 bits carry
        np.testing.assert_allclose(mel[loud], store.mel(place)[loud], atol=0.05, rtol=0)
    with pytest.raises(DataError, match="only held-out utterances have one"):
        store.reference_audio(store.train[0])
    assert len(list((store.folder / "held_out").iterdir())) == len(store.held_out)


def test_views_read_only(store):
    mel = store.mel(0)
    assert mel.base is not None
    with pytest.raises(ValueError, match="read-only"):
        mel[0, 0] = 1.0


def test_totals(store, tiny):
    assert store.summary.frames == store.frames.sum()
    assert store.summary.utterances == 20
    assert store.summary.seconds == pytest.approx(store.frames.sum() * tiny.audio.hop_length / tiny.audio.sample_rate, rel=0.02)
    assert store.config == tiny
    assert store.quality["accepted"] == 20


def test_same_knobs_fit_whatever_else_changes(store, tiny):
    store.check(tiny)
    store.check(override(tiny, {"training.steps": 1, "data.frame_budget": 500, "quality.max_seconds": 3.0}))


def test_each_knob_that_does_not_fit_is_named(store, tiny):
    other = override(tiny, {"audio.mels": 40, "text.language": "ru", "training.steps": 1})
    with pytest.raises(UsageError) as caught:
        store.check(other)
    message = str(caught.value)
    assert "audio.mels is 40, the features were prepared with 80" in message
    assert "text.language is 'ru', the features were prepared with 'en'" in message
    assert "training.steps" not in message
    assert "tts prepare" in message


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(DataError, match=rf"{name}.*tts prepare"):
        FeatureStore.open(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_in_half_is_named(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{name}.*tts prepare"):
        FeatureStore.open(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_right_size_and_wrong_content(copy, name):
    (copy / name).write_bytes(b"\x80" * (copy / name).stat().st_size)
    with pytest.raises(DataError, match="damaged"):
        store = FeatureStore.open(copy)
        store.quality  # noqa: B018 - read when it is asked for


def test_files_of_another_store(copy):
    """Sizes are right, but the index belongs to other frames."""
    with np.load(copy / "index.npz") as index:
        arrays = dict(index)
    arrays["offsets"] = arrays["offsets"] - 1
    np.savez(copy / "index.npz", **arrays)
    with pytest.raises(DataError, match="do not belong together"):
        FeatureStore.open(copy)


@pytest.mark.parametrize("change", [{"audio.log_floor": 1e-4}, {"quality.max_seconds": 9.0}, {"data.split_seed": 5}, {"text.unknown_symbol": "drop"}])
def test_an_edited_configuration_is_not_what_it_was_made_with(copy, tiny, change):
    (copy / "config.json").write_text(to_json(override(tiny, change)))
    with pytest.raises(DataError, match=r"config\.json is not what it was made with.*tts prepare"):
        FeatureStore.open(copy)
    (copy / "config.json").write_text(to_json(override(tiny, {"training.steps": 9})))
    assert FeatureStore.open(copy).config.training.steps == 9


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_mean_that_is_no_number(copy, value):
    summary = json.loads((copy / "features.json").read_text())
    summary["mel_mean"][3] = float(value.lower())
    (copy / "features.json").write_text(json.dumps(summary))
    with pytest.raises(DataError, match=r"features\.json is damaged \(1 wrong fields\)"):
        FeatureStore.open(copy)


@pytest.mark.parametrize("name", ["mels.npy", "index.npz", "texts.json", "quality.json", "held_out"])
def test_a_flipped_bit_is_found_by_reading_all(copy, name):
    FeatureStore.open(copy).verify()
    path = next((copy / name).iterdir()) if name == "held_out" else copy / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        FeatureStore.open(copy).verify()


def test_another_format(copy):
    summary = json.loads((copy / "features.json").read_text())
    (copy / "features.json").write_text(json.dumps(summary | {"format": 99}))
    with pytest.raises(DataError, match="has format 99"):
        FeatureStore.open(copy)


def test_what_is_no_store(tmp_path):
    with pytest.raises(DataError, match="does not exist; expected a folder made by `tts prepare`"):
        FeatureStore.open(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        FeatureStore.open(tmp_path / "file")
    with pytest.raises(DataError, match=r"is not a feature store: it has no features\.json"):
        FeatureStore.open(tmp_path)


def test_who_speaks_is_kept_by_name_and_number(voices_features, voices_corpus, store):
    spoken = FeatureStore.open(voices_features)
    clips = {clip.id: clip for clip in read_corpus(voices_corpus)}
    assert list(spoken.speakers) == ["mila", "viktor"]
    assert [spoken.speakers[number] for number in spoken.speaker_numbers] == [clips[name].speaker for name in spoken.ids]
    for side in (spoken.train, spoken.held_out):
        assert set(spoken.speaker_numbers[side].tolist()) == {0, 1}
    spoken.verify()
    assert store.speakers == []
    assert store.speaker_numbers.tolist() == [0] * 20


def test_a_speaker_that_the_names_do_not_have(voices_features, tmp_path):
    copy = shutil.copytree(voices_features, tmp_path / "store")
    with np.load(copy / "index.npz") as index:
        arrays = dict(index)
    arrays["speakers"][0] = 2
    np.savez(copy / "index.npz", **arrays)
    with pytest.raises(DataError, match="do not belong together"):
        FeatureStore.open(copy)
