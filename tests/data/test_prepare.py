# ruff: noqa: RUF001 - Cyrillic letters that look like Latin ones are meant
import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tts.config import Config, DataConfig
from tts.config.load import override
from tts.data.demo_corpus import write_demo_corpus
from tts.data.prepare import prepare
from tts.data.split import split
from tts.data.store import FeatureStore
from tts.errors import CannotWriteError, DataError, UsageError
from tts.progress import Silent

ENGLISH = Config()
RUSSIAN = override(ENGLISH, {"text.language": "ru"})


def run(corpus, features, config=ENGLISH):
    return prepare(corpus, features, config, progress=Silent())


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def rejected(features):
    return {entry["id"]: entry["reason"] for entry in json.loads((features / "quality.json").read_text())["rejected"]}


def test_same_corpus_same_bytes_wherever_it_lies(write_corpus, texts, tmp_path):
    first, second = (run(write_corpus(texts, name), tmp_path / f"features {name}") for name in ("here", "there"))
    assert content(tmp_path / "features here") == content(tmp_path / "features there")
    assert first == second
    assert (first.utterances, first.rejected, first.reused) == (10, 0, False)


def test_second_time_nothing_is_written(write_corpus, texts, tmp_path):
    corpus, features = write_corpus(texts), tmp_path / "features"
    first = run(corpus, features)
    before = {path: path.stat().st_mtime_ns for path in features.rglob("*")}
    again = run(corpus, features)
    assert again.reused
    assert (again.fingerprint, again.frames, again.seconds) == (first.fingerprint, first.frames, first.seconds)
    assert {path: path.stat().st_mtime_ns for path in features.rglob("*")} == before


def test_knobs_of_later_stages_are_kept_without_making_it_anew(write_corpus, texts, tmp_path):
    corpus, features = write_corpus(texts), tmp_path / "features"
    run(corpus, features)
    before = (features / "mels.npy").stat().st_mtime_ns
    assert run(corpus, features, override(ENGLISH, {"training.steps": 5})).reused
    assert FeatureStore.open(features).config.training.steps == 5
    assert (features / "mels.npy").stat().st_mtime_ns == before


def test_other_knobs_or_recordings_make_it_anew(write_corpus, texts, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    corpus, features = write_corpus(texts), tmp_path / "features"
    first = run(corpus, features)
    second = run(corpus, features, override(ENGLISH, {"audio.mels": 40}))
    assert not second.reused
    assert second.fingerprint != first.fingerprint
    assert FeatureStore.open(features).mel(0).shape[1] == 40
    assert "was made from other recordings or with other knobs" in caplog.text
    soundfile.write(corpus / "wavs" / "clip00.wav", 0.2 * np.sin(np.arange(22050) / 9), 22050)
    assert run(corpus, features, override(ENGLISH, {"audio.mels": 40})).fingerprint != second.fingerprint


def test_a_flipped_bit_is_made_anew(write_corpus, texts, tmp_path):
    corpus, features = write_corpus(texts), tmp_path / "features"
    run(corpus, features)
    before = content(features)
    mels = bytearray(before["mels.npy"])
    mels[-100] ^= 64
    (features / "mels.npy").write_bytes(mels)
    assert not run(corpus, features).reused
    assert content(features) == before


def test_a_floor_below_single_precision_is_refused(write_corpus, texts, tmp_path):
    corpus = write_corpus(texts)
    samples, rate = soundfile.read(corpus / "wavs" / "clip03.wav")
    samples[len(samples) // 3 : len(samples) // 2] = 0
    soundfile.write(corpus / "wavs" / "clip03.wav", samples, rate)
    with pytest.raises(DataError, match=r"clip clip03 has mel frames that are not finite; audio\.log_floor \(1e-60\)"):
        run(corpus, tmp_path / "features", override(ENGLISH, {"audio.log_floor": 1e-60}))
    assert not (tmp_path / "features").exists()


def test_a_damaged_store_is_made_anew(write_corpus, texts, tmp_path, caplog):
    corpus, features = write_corpus(texts), tmp_path / "features"
    run(corpus, features)
    before = content(features)
    (features / "mels.npy").write_bytes(b"cut")
    assert not run(corpus, features).reused
    assert content(features) == before
    assert "making it anew" in caplog.text


def test_foreign_russian_corpus_44_khz_stereo_with_numbers(write_corpus, tmp_path):
    texts = {
        "a": "В 1984 г. ёж ушёл.",
        "b": "Цена 21 руб., т.е. дёшево",
        "c": "Съешь ещё 2 булки",
        "d": "За\u0301мок закрыт на замо\u0301к",
        "e": "Эй, жлоб! Где туз?",
    }
    summary = run(write_corpus(texts, rate=44100, channels=2), tmp_path / "features", RUSSIAN)
    store = FeatureStore.open(tmp_path / "features")
    assert summary.utterances == 5
    assert store.texts[0] == "в тысяча девятьсот восемьдесят четвёртом году ёж ушёл."
    assert store.texts[3] == "замок закрыт на замок"
    assert list(store.original_texts) == list(texts.values())
    assert store.quality["counts"]["resampled"] == store.quality["counts"]["mixed_down"] == 5
    # 16 characters a second: resampling kept the durations.
    seconds = sum(len(text) for text in texts.values()) / 16
    assert summary.seconds == pytest.approx(seconds, rel=0.05)


def test_russian_demo_corpus(tmp_path):
    write_demo_corpus(tmp_path / "corpus", language="ru", utterances=12, seed=3, progress=Silent())
    assert run(tmp_path / "corpus", tmp_path / "features", RUSSIAN).rejected == 0
    assert FeatureStore.open(tmp_path / "features").symbol_table.symbols[-1] == "я"


def test_a_damaged_clip_costs_the_clip(write_corpus, tmp_path):
    texts = {f"good{place}": f"a sentence of some length, number {'x' * place}" for place in range(20)}
    bad = {
        "cut": "one",
        "gone": "two",
        "silent": "three",
        "loud": "four",
        "short": "five",
        "long": "six",
        "blank": "...",
        "sign": "seven © ok",
        "twin": "x",
        "endless": "eight",
        "nothing": "nine",
        "huge": "ten",
        "claims": "eleven",
    }
    corpus, features = write_corpus({**texts, **bad}), tmp_path / "features"
    wavs = corpus / "wavs"
    (wavs / "cut.wav").write_bytes((wavs / "good0.wav").read_bytes()[:30])
    (wavs / "gone.wav").unlink()
    soundfile.write(wavs / "silent.wav", np.zeros(22050), 22050)
    soundfile.write(wavs / "loud.wav", np.sign(np.sin(np.arange(22050) / 9)), 22050)
    soundfile.write(wavs / "short.wav", 0.3 * np.sin(np.arange(4000) / 9), 22050)
    soundfile.write(wavs / "long.wav", 0.3 * np.sin(np.arange(22050 * 16) / 9), 22050)
    shutil.copy(wavs / "good1.wav", wavs / "twin.wav")
    soundfile.write(wavs / "endless.wav", np.zeros(22050 * 61), 22050)
    soundfile.write(wavs / "nothing.wav", np.zeros(0), 22050)
    soundfile.write(wavs / "huge.wav", np.full((22050, 2), 3e38), 22050, subtype="FLOAT")
    soundfile.write(wavs / "claims.wav", 0.3 * np.sin(np.arange(22050) / 9), 22050, format="FLAC")
    flac = bytearray((wavs / "claims.wav").read_bytes())
    flac[21:26] = b"\xff" * 5  # the number of samples in its header
    (wavs / "claims.wav").write_bytes(flac)
    (corpus / "metadata.csv").write_text((corpus / "metadata.csv").read_text().replace("twin|x", f"twin|{texts['good1']}"))
    summary = run(corpus, features, override(ENGLISH, {"quality.max_rejected_share": 0.5}))
    assert rejected(features) == {
        "cut": "unreadable", "gone": "unreadable", "silent": "silent", "loud": "clipped", "short": "too_short", "long": "too_long",
        "blank": "empty_text", "sign": "unknown_symbol", "twin": "duplicate",
        "endless": "too_long", "nothing": "unreadable", "huge": "unreadable", "claims": "unreadable",
    }  # fmt: skip
    assert (summary.utterances, summary.rejected) == (20, 13)
    assert list(FeatureStore.open(features).ids) == list(texts)
    detail = {entry["id"]: entry["detail"] for entry in json.loads((features / "quality.json").read_text())["rejected"]}
    assert "gone.wav" in detail["gone"]
    assert "holds no samples" in detail["nothing"]
    assert "lasts 61.0 s by its header, more than 4 times quality.max_seconds (15.0)" in detail["endless"]
    assert "'©' (U+00A9)" in detail["sign"]


def test_takes_that_differ_in_silence_alone_are_duplicates(write_corpus, texts, tmp_path):
    corpus = write_corpus(texts | {"twin": texts["clip00"]})
    samples, rate = soundfile.read(corpus / "wavs" / "clip00.wav", dtype="int16")
    samples[:2048] = samples[-2048:] = 0
    hop = 256
    for name, silence in (("clip00", 8), ("twin", 20)):
        padded = np.concatenate((np.zeros(silence * hop, np.int16), samples, np.zeros(3 * silence * hop, np.int16)))
        soundfile.write(corpus / "wavs" / f"{name}.wav", padded, rate)
    run(corpus, tmp_path / "features")
    assert rejected(tmp_path / "features") == {"twin": "duplicate"}


def test_a_clip_rejected_late_leaves_no_frames(write_corpus, texts, tmp_path):
    """Rate outliers show only when all clips are known; their frames are already on disk then."""
    texts = {f"good{place:02d}": f"a sentence of some length {'abcdefghijkl'[:place]}" for place in range(12)} | {"slow": "so"}
    corpus = write_corpus(texts)
    for place, name in enumerate(texts):
        seconds = len(texts[name]) / (15 + 0.1 * place) if name != "slow" else 3.0
        soundfile.write(corpus / "wavs" / f"{name}.wav", 0.3 * np.sin(np.arange(round(22050 * seconds)) / 9), 22050)
    lines = (corpus / "metadata.csv").read_text().splitlines()
    (corpus / "metadata.csv").write_text("\n".join([*lines[:5], lines[-1], *lines[5:-1]]))
    run(corpus, tmp_path / "with")
    assert rejected(tmp_path / "with") == {"slow": "rate_outlier"}
    (corpus / "metadata.csv").write_text("\n".join(lines[:-1]))
    run(corpus, tmp_path / "without")
    for name in ("mels.npy", "index.npz", "texts.json"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_dropped_characters_are_counted(write_corpus, texts, tmp_path):
    marked = {name: f"{text} © *" for name, text in texts.items()}
    with pytest.raises(DataError, match=r"10 of 10 clips.*10 unknown_symbol \(such as clip00: character '©'"):
        run(write_corpus(marked), tmp_path / "features")
    assert not (tmp_path / "features").exists()
    run(tmp_path / "corpus", tmp_path / "features", override(ENGLISH, {"text.unknown_symbol": "drop"}))
    assert FeatureStore.open(tmp_path / "features").quality["counts"]["dropped_characters"] == 20


def test_wrong_language_says_what_to_set(corpus, tmp_path):
    with pytest.raises(DataError, match=r"20 of 20 clips are rejected.*set text\.language"):
        run(corpus, tmp_path / "features", RUSSIAN)
    assert list(tmp_path.iterdir()) == []


def test_silence_at_the_ends_is_cut_and_counted(write_corpus, texts, tmp_path):
    corpus = write_corpus(texts)
    plain = run(corpus, tmp_path / "plain")
    for path in (corpus / "wavs").iterdir():
        samples, rate = soundfile.read(path)
        soundfile.write(path, np.concatenate((np.zeros(11025), samples, np.zeros(11025))), rate)
    trimmed = run(corpus, tmp_path / "trimmed")
    assert trimmed.seconds == pytest.approx(plain.seconds, abs=10 * 0.1)
    quality = FeatureStore.open(tmp_path / "trimmed").quality
    assert quality["counts"]["trimmed"] == 10
    assert quality["trimmed_seconds"] == pytest.approx(10, abs=1)
    store = FeatureStore.open(tmp_path / "trimmed")
    for place in store.held_out:  # the recording that is compared with is cut as well
        samples, _ = soundfile.read(store.reference_audio(place))
        assert 1 + len(samples) // 256 == store.frames[place]
        assert min(np.abs(samples[:1024]).max(), np.abs(samples[-1024:]).max()) > 0.1
    assert run(corpus, tmp_path / "untrimmed", override(ENGLISH, {"audio.trim_db": 0.0})).seconds == pytest.approx(plain.seconds + 10, abs=0.1)


@pytest.mark.parametrize(("utterances", "said"), [(0, "0 usable clips are"), (1, "1 usable clips are"), (5, "5 usable clips that say 1 text are")])
def test_too_few_to_split(utterances, said):
    with pytest.raises(DataError, match=f"{said} too few"):
        split(["a"] * utterances, DataConfig())


def test_two_takes_are_counted_and_stay_together(write_corpus, texts, tmp_path):
    takes = texts | {f"again{name}": text for name, text in texts.items()}
    run(write_corpus(takes), tmp_path / "features", override(ENGLISH, {"data.held_out_share": 0.3}))
    store = FeatureStore.open(tmp_path / "features")
    assert store.quality["counts"]["repeated_texts"] == 20 - len(set(texts.values()))
    held_out, trained = ({store.texts[place] for place in places} for places in (store.held_out, store.train))
    assert held_out
    assert not held_out & trained


@pytest.mark.parametrize(("share", "most", "expected"), [(0.05, 100, 5), (0.001, 100, 1), (0.4, 7, 7), (0.49, 100, 49)])
def test_held_out_share(share, most, expected):
    held_out = split([str(place) for place in range(100)], DataConfig(held_out_share=share, held_out_max=most))
    assert held_out.sum() == expected


def test_split_hardly_moves_when_a_clip_is_added():
    ids = [f"clip{place}" for place in range(200)]
    before, after = split(ids, DataConfig()), split([*ids, "one more"], DataConfig())
    assert (before != after[:-1]).sum() <= 1
    assert (split(ids, DataConfig(split_seed=1)) != before).any()


def test_other_peoples_files_are_never_replaced(write_corpus, texts, tmp_path):
    corpus = write_corpus(texts)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    for folder in (tmp_path / "home", corpus):
        before = content(folder)
        with pytest.raises(UsageError, match=r"not part of a feature store.*nothing there was touched"):
            run(corpus, folder)
        assert content(folder) == before


@pytest.mark.parametrize("entry", ["run1/checkpoints/step-00000100.pt", "notes.txt", ".hidden"])
def test_what_is_not_ours_in_a_store_is_never_replaced(write_corpus, texts, tmp_path, entry):
    corpus, features = write_corpus(texts), tmp_path / "features"
    run(corpus, features)
    (features / entry).parent.mkdir(parents=True, exist_ok=True)
    (features / entry).write_text("days of work")
    before = content(features)
    with pytest.raises(UsageError, match=rf"holds '{entry.split('/')[0]}', which is not part of a feature store.*nothing there was touched"):
        run(corpus, features, override(ENGLISH, {"audio.mels": 40}))
    assert content(features) == before


def test_a_half_written_file_of_ours_is_no_ones(write_corpus, texts, tmp_path):
    corpus, features = write_corpus(texts), tmp_path / "features"
    run(corpus, features)
    (features / ".config.json.x.partial").write_text("{")
    assert run(corpus, features, override(ENGLISH, {"audio.mels": 40})).utterances == 10


def test_a_place_that_cannot_be_replaced_is_said_before_the_corpus_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CannotWriteError, match="current folder"):
        run(tmp_path / "no such corpus", Path())


def test_a_file_in_the_way(write_corpus, texts, tmp_path):
    corpus = write_corpus(texts)
    (tmp_path / "file").touch()
    for target in (tmp_path / "file", tmp_path / "file" / "features"):
        with pytest.raises(CannotWriteError, match="a file is in the way"):
            run(corpus, target)


def test_interrupt_leaves_the_old_store_and_nothing_else(write_corpus, texts, tmp_path):
    corpus, features = write_corpus(texts), tmp_path / "out" / "features"
    run(corpus, features)
    before, threads = content(features), torch.get_num_threads()

    class Interrupted(Silent):
        def task(self, title, total, done=0):
            if title == "prepare":
                raise KeyboardInterrupt
            return super().task(title, total, done)

    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, features, override(ENGLISH, {"audio.mels": 40}), progress=Interrupted())
    assert content(features) == before
    assert [path.name for path in features.parent.iterdir()] == ["features"]
    assert torch.get_num_threads() == threads


SCRIPT = """
import os, sys
from contextlib import nullcontext
from pathlib import Path
from tts.config import Config
from tts.data.prepare import prepare
from tts.progress import Silent

class Stopping:
    def advance(self, steps=1, **figures):
        os.kill(os.getpid(), int(sys.argv[3]))

class Progress(Silent):
    def task(self, title, total, done=0):
        return nullcontext(Stopping()) if title == "prepare" else super().task(title, total, done)

try:
    prepare(Path(sys.argv[1]), Path(sys.argv[2]), Config(), progress=Progress())
except KeyboardInterrupt:
    sys.exit(130)
"""


def stopped(corpus, features, number):
    """Exit code of a process that gets a signal in the middle of its work."""
    command = [sys.executable, "-c", SCRIPT, str(corpus), str(features), str(int(number))]
    return subprocess.run(command, check=False, timeout=120).returncode


def test_ctrl_c_and_kill_in_the_middle_then_again(write_corpus, texts, tmp_path):
    corpus, features = write_corpus(texts), tmp_path / "out" / "features"
    assert stopped(corpus, features, signal.SIGINT) == 130
    assert list(features.parent.iterdir()) == []
    assert stopped(corpus, features, signal.SIGKILL) == -signal.SIGKILL
    # What a killed process leaves is hidden, and does not disturb.
    assert not features.exists()
    assert [path.name[0] for path in features.parent.iterdir()] == ["."]
    assert run(corpus, features).utterances == 10
    assert FeatureStore.open(features).summary.utterances == 10


def test_who_is_not_held_out_or_lost_altogether_is_said(write_corpus, texts, tmp_path, caplog):
    corpus = write_corpus(texts | {"lost": "This one is silent."})
    soundfile.write(corpus / "wavs" / "lost.wav", np.zeros(22050), 22050)
    lines = (corpus / "metadata.csv").read_text().splitlines()
    entries = [dict(zip(("audio", "text"), line.split("|"), strict=True)) for line in lines]
    speakers = ["seldom"] + ["often"] * 9 + ["mute"]
    (corpus / "metadata.csv").unlink()
    (corpus / "manifest.jsonl").write_text(
        "".join(
            json.dumps(entry | {"audio": f"wavs/{entry['audio']}.wav", "speaker": speaker}) + "\n"
            for entry, speaker in zip(entries, speakers, strict=True)
        )
    )
    with caplog.at_level(logging.WARNING):
        run(corpus, tmp_path / "features")
    assert "no clip of seldom is held out" in caplog.text
    assert "no clip of mute can be used" in caplog.text
    assert FeatureStore.open(tmp_path / "features").speakers == ["often", "seldom"]
