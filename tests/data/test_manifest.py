"""Corpora whose list names speakers."""

import json
import tarfile

import pytest

from tts.data.clip import Clip
from tts.data.corpus import corpus_digest, read_corpus
from tts.errors import DataError
from tts.storage import opened, publish

ANNA = '{"audio": "anna/1.wav", "text": "In 1984.", "speaker": "anna"}'


def corpus_of(folder, *lines, audio=("anna/1.wav",)):
    for name in audio:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"sound of " + name.encode())
    (folder / "manifest.jsonl").write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return folder


def test_clips_with_speakers_in_the_order_of_the_lines(tmp_path):
    folder = corpus_of(
        tmp_path / "c", {"audio": "boris/1.flac", "text": " Съешь ещё \n", "speaker": "Борис", "language": "ru"}, "", ANNA, "\r",
        audio=("anna/1.wav", "boris/1.flac"),
    )  # fmt: skip
    assert read_corpus(folder) == [
        Clip("boris-1", folder / "boris" / "1.flac", "Съешь ещё", "Борис"),
        Clip("anna-1", folder / "anna" / "1.wav", "In 1984.", "anna"),
    ]


def test_without_speakers_it_names_the_clips_of_the_other_layout(tmp_path):
    names = ("a", "b.c")
    folder = corpus_of(
        tmp_path / "c", *({"audio": f"wavs/{name}.wav", "text": f"Say {name}."} for name in names), audio=["wavs/a.wav", "wavs/b.c.wav"]
    )
    clips = read_corpus(folder)
    (folder / "manifest.jsonl").unlink()
    (folder / "metadata.csv").write_text("".join(f"{name}|Say {name}.\n" for name in names))
    assert read_corpus(folder) == clips


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([ANNA, "{"], r"manifest\.jsonl, line 2 is not JSON \(.*expected an object such as '{\"audio\""),
        (["[1]"], r"line 1: expected an object such as .*, got '\[1\]'"),
        ([ANNA, "", '{"audio": "b.wav", "speaker": "b"}'], "line 3: text is missing; expected"),
        (["{}"], "line 1: audio and text are missing"),
        (['{"audio": "b.wav", "text": "b", "speeker": "b"}'], "line 1: 'speeker' is no field; did you mean speaker?"),
        (['{"audio": "b.wav", "text": "b", "duration": 3}'], "'duration' is no field; fields are audio, text, speaker, language"),
        (['{"audio": "b.wav", "text": 7}'], "line 1: text must be a text, got 7"),
        (['{"audio": "b.wav", "text": null}'], "line 1: text must be a text, got None"),
        (['{"audio": "b.wav", "text": "b", "speaker": " "}'], "line 1: speaker must be a text that is not empty, got ' '"),
        (['{"audio": "", "text": "b"}'], "line 1: audio must be a text that is not empty"),
        ([ANNA, '{"audio": "b.wav", "text": "b"}'], "line 2: no speaker, unlike the lines before; name all of them or none"),
        (['{"audio": "b.wav", "text": "b"}', ANNA], "line 2: a speaker, unlike the lines before"),
        (['{"audio": "../b.wav", "text": "b"}'], r"line 1: audio '\.\./b\.wav' must be a file's path in the corpus"),
        (['{"audio": "/etc/b.wav", "text": "b"}'], "line 1: audio '/etc/b.wav' must be"),
        (['{"audio": "a\\\\b.wav", "text": "b"}'], "line 1: audio .* must be a file's path"),
        (['{"audio": ".", "text": "b"}'], r"line 1: audio '\.' must be"),
        ([ANNA, ANNA], "line 2: id 'anna-1' appears a second time"),
        ([ANNA, '{"audio": "anna-1.wav", "text": "b", "speaker": "b"}'], "line 2: id 'anna-1' appears a second time"),
        ([""], r"manifest\.jsonl is empty; expected lines such as '{\"audio\""),
        (['{"audio": "no/b.wav", "text": "b"}'], r"holds none of the 1 recordings that manifest\.jsonl names; the first would be .*no/b\.wav"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        read_corpus(corpus_of(tmp_path / "c", *lines))


def test_a_line_in_another_language_is_named(tmp_path):
    folder = corpus_of(tmp_path / "c", ANNA, '{"audio": "b.wav", "text": "b", "speaker": "b", "language": "ru"}')
    assert len(read_corpus(folder)) == len(read_corpus(folder, "ru")) == 2
    with pytest.raises(DataError, match=r"line 2: language is 'ru', the configuration's is 'en'; set --text\.language ru, or take such lines out"):
        read_corpus(folder, "en")


def test_two_lists_are_one_too_many(tmp_path):
    folder = corpus_of(tmp_path / "c", ANNA)
    (folder / "metadata.csv").write_text("1|text")
    with pytest.raises(DataError, match=r"has both metadata\.csv and manifest\.jsonl; remove the one that does not hold"):
        read_corpus(folder)


def test_another_speaker_is_another_corpus(tmp_path):
    folders = [corpus_of(tmp_path / name, ANNA.replace('"anna"', f'"{name}"')) for name in ("anna", "boris")]
    ours, theirs = (corpus_digest(folder, read_corpus(folder)) for folder in folders)
    assert ours != theirs
    assert ours == corpus_digest(folders[0], read_corpus(corpus_of(tmp_path / "again", ANNA)))


def test_an_archive_of_it_and_a_prefix_in_a_store(tmp_path, bucket):
    folder = corpus_of(tmp_path / "voices", ANNA)
    with tarfile.open(tmp_path / "voices.tar.gz", "w:gz") as archive:
        archive.add(folder, arcname="voices")
    publish(folder, f"{bucket.uri}/voices")
    for place in (str(tmp_path / "voices.tar.gz"), f"{bucket.uri}/voices"):
        (clip,) = read_corpus(opened(place))
        assert (clip.id, clip.speaker, clip.audio.read_bytes()) == ("anna-1", "anna", b"sound of anna/1.wav")
