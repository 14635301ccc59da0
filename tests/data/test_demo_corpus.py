import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from tts.config import TextConfig
from tts.data.corpus import read_corpus
from tts.data.demo_corpus import SPEAKERS, VOICES, sentences, write_demo_corpus
from tts.errors import CannotWriteError, UsageError
from tts.progress import Silent
from tts.text import text_to_symbols
from tts.text.symbols import LETTERS


def write(folder, language="en", utterances=6, seed=0, speakers=1):
    return write_demo_corpus(folder, language=language, utterances=utterances, seed=seed, speakers=speakers, progress=Silent())


def content(folder):
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("language", "least"), [("en", 400), ("ru", 350)])
def test_sentences_are_many_different_and_cover_the_alphabet(language, least):
    texts = sentences(language)
    assert len(texts) >= least
    assert len({text.lower() for text in texts}) == len(texts)
    spelled = [text_to_symbols(text, TextConfig(language=language)).text for text in texts]
    letters = "".join(spelled)
    assert all(letters.count(letter) >= 5 for letter in LETTERS[language])
    assert all(re.search(rf"\{sign}", letters) for sign in ".,?!")
    assert max(len(text) for text in spelled) < 80
    assert "|" not in letters


@pytest.mark.parametrize("language", VOICES)
def test_every_sentence_is_read_the_same_twice(language):
    """The third column is normalised text, and preparing normalises it once more."""
    config = TextConfig(language=language)
    for text in sentences(language):
        once = text_to_symbols(text, config).text
        assert text_to_symbols(once, config).text == once


@pytest.mark.parametrize("language", VOICES)
def test_clips_are_short_audible_speech(tmp_path, language):
    summary = write(tmp_path / "corpus", language, utterances=25)
    clips = read_corpus(tmp_path / "corpus")
    assert len(clips) == summary.utterances == 25
    total = 0.0
    for clip in clips:
        samples, rate = soundfile.read(clip.audio, dtype="float32")
        info = soundfile.info(str(clip.audio))
        assert (rate, info.subtype, info.channels) == (22050, "PCM_16", 1)
        assert 1.0 < len(samples) / rate < 4.0
        assert 8 < len(clip.text) / (len(samples) / rate) < 25
        assert 0.2 < np.abs(samples).max() < 1
        # No silence at the ends: the loudest of the first and last 30 ms are speech.
        assert min(np.abs(samples[:660]).max(), np.abs(samples[-660:]).max()) > 1e-3
        total += len(samples) / rate
    assert summary.seconds == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("language", VOICES)
def test_several_speakers_share_the_sentences_and_sound_different(tmp_path, language):
    write(tmp_path / "corpus", language, utterances=8, speakers=len(SPEAKERS))
    clips = read_corpus(tmp_path / "corpus", language)
    assert [clip.speaker for clip in clips] == [speaker.name for speaker in SPEAKERS] * 2
    one = write(tmp_path / "one", language, utterances=8)
    assert [(clip.id, clip.text) for clip in clips] == [(clip.id, clip.text) for clip in read_corpus(tmp_path / "one")]
    assert one.utterances == len({clip.audio.read_bytes() for clip in clips}) == 8
    pitch = {clip.id: _pitch(soundfile.read(clip.audio)[0]) for clip in clips}
    kinds = {speaker.name: speaker.variant[1] for speaker in SPEAKERS}
    women, men = ([pitch[clip.id] for clip in clips if kinds[clip.speaker] == kind] for kind in "fm")
    assert min(women) > max(men) * 1.2


def _pitch(samples, rate=22050):
    """Hz, by autocorrelation: the median over voiced pieces."""
    found = []
    for first in range(0, len(samples) - 2048, 1024):
        piece = samples[first : first + 2048] - samples[first : first + 2048].mean()
        likeness = np.correlate(piece, piece, "full")[2047:]
        lag = rate // 400 + int(likeness[rate // 400 : rate // 60].argmax())
        if likeness[lag] > 0.6 * likeness[0] > 0:
            found.append(rate / lag)
    return float(np.median(found))


def test_a_corpus_of_several_is_reused_and_replaced(tmp_path):
    folder = tmp_path / "corpus"
    assert not write(folder, speakers=2).reused
    assert write(folder, speakers=2).reused
    assert not write(folder, speakers=3).reused
    assert not write(folder).reused
    assert not (folder / "manifest.jsonl").exists()


@pytest.mark.parametrize(("speakers", "utterances"), [(0, 6), (5, 6), (3, 2)])
def test_as_many_speakers_as_there_are(tmp_path, speakers, utterances):
    with pytest.raises(UsageError, match=rf"speakers must be 1 to \d, and not more than utterances \({utterances}\); got {speakers}"):
        write(tmp_path / "corpus", utterances=utterances, speakers=speakers)


def test_same_arguments_same_bytes(corpus, tmp_path):
    write(tmp_path / "again", utterances=20)
    assert content(tmp_path / "again") == content(corpus)


def test_seed_draws_other_sentences(tmp_path):
    write(tmp_path / "a", seed=1)
    write(tmp_path / "b", seed=2)
    assert [clip.text for clip in read_corpus(tmp_path / "a")] != [clip.text for clip in read_corpus(tmp_path / "b")]


def test_second_time_is_reused_and_other_arguments_replace(tmp_path):
    folder = tmp_path / "corpus"
    assert not write(folder).reused
    before = content(folder)
    again = write(folder)
    assert again.reused
    assert again.utterances == 6
    assert content(folder) == before
    (folder / "wavs" / f"{read_corpus(folder)[0].id}.wav").unlink()
    assert not write(folder).reused
    assert content(folder) == before
    assert not write(folder, utterances=4).reused
    assert len(read_corpus(folder)) == len(list((folder / "wavs").iterdir())) == 4
    (folder / "demo-corpus.json").write_text("{cut")
    assert not write(folder, utterances=4).reused


def test_own_recordings_are_never_replaced(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "metadata.csv").write_text("a|mine")
    with pytest.raises(UsageError, match=r"not a demo corpus.*nothing there was touched"):
        write(folder)
    assert content(folder).keys() == {"metadata.csv"}


def test_what_is_not_ours_in_a_demo_corpus_is_never_replaced(tmp_path):
    folder = tmp_path / "corpus"
    write(folder)
    (folder / "run").mkdir()
    (folder / "run" / "notes.txt").write_text("mine")
    before = content(folder)
    with pytest.raises(UsageError, match=r"holds 'run', which is not part of a demo corpus.*nothing there was touched"):
        write(folder, utterances=4)
    assert content(folder) == before


@pytest.mark.parametrize("utterances", [0, -1, 10_000])
def test_as_many_as_there_are_sentences(tmp_path, utterances):
    with pytest.raises(UsageError, match=rf"utterances must be 1 to {len(sentences('en'))}.*got {utterances}"):
        write(tmp_path / "corpus", utterances=utterances)
    assert not (tmp_path / "corpus").exists()


def test_language_and_place_are_checked(tmp_path):
    with pytest.raises(UsageError, match=r"'xx'.*en, ru"):
        write(tmp_path / "corpus", language="xx")
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError, match="a file is in the way"):
        write(tmp_path / "file")
    with pytest.raises(CannotWriteError, match="a file is in the way"):
        write(tmp_path / "file" / "corpus")


def test_interrupt_leaves_nothing(tmp_path):
    """Ctrl-C while clips are written."""

    class Interrupted(Silent):
        def task(self, title, total, done=0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo_corpus(tmp_path / "corpus", language="en", utterances=3, seed=0, progress=Interrupted())
    assert list(tmp_path.iterdir()) == []


def test_speaking_stays_in_a_process_of_its_own():
    """espeak's library is not loaded here, nor is the request's program part of ours: it runs without our package."""
    from tts.data import espeak

    request = json.dumps({"voice": "no-such-voice", "rate": 150, "texts": ["a"]}).encode()
    finished = subprocess.run([sys.executable, "-P", espeak.__file__], input=request, capture_output=True, check=False)
    assert finished.returncode != 0
    assert b"voice 'no-such-voice' at 150 words a minute is not available" in finished.stderr
