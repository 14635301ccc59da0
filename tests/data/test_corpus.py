import pytest

from tts.data.corpus import Clip, corpus_digest, read_corpus
from tts.errors import DataError


def corpus_of(folder, metadata, wavs=("a",)):
    (folder / "wavs").mkdir(parents=True)
    (folder / "metadata.csv").write_bytes(metadata if isinstance(metadata, bytes) else metadata.encode())
    for name in wavs:
        (folder / "wavs" / f"{name}.wav").write_bytes(b"sound of " + name.encode())
    return folder


def test_two_and_three_columns(tmp_path):
    folder = corpus_of(tmp_path / "c", "a|In 1984.\nb|Dr. No|Doctor No\nc|Kept.|\n")
    assert read_corpus(folder) == [
        Clip("a", folder / "wavs" / "a.wav", "In 1984."),
        Clip("b", folder / "wavs" / "b.wav", "Doctor No"),
        Clip("c", folder / "wavs" / "c.wav", "Kept."),
    ]


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ('a|He said "no, never", and left.', 'He said "no, never", and left.'),
        ('a|"Open quotation', '"Open quotation'),
        ("\ufeffa|Byte order mark", "Byte order mark"),
        ("a|Windows line\r\n\r\n", "Windows line"),
        ("a|Comma, semicolon; tab\tinside", "Comma, semicolon; tab\tinside"),
        ("a|Line\u2028separator\x0cand form feed", "Line\u2028separator\x0cand form feed"),
        ("a|Съешь ещё", "Съешь ещё"),
    ],
)
def test_text_is_taken_as_it_is(tmp_path, metadata, text):
    assert [(clip.id, clip.text) for clip in read_corpus(corpus_of(tmp_path / "c", metadata))] == [("a", text)]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("a|fine\nb\n", "line 2: expected 2 or 3 columns.*got 1: 'b'"),
        ("a|x|y|z", "line 1: expected 2 or 3 columns.*got 4"),
        ("a|one\n\nb|two\na|three", "line 4: id 'a' appears a second time"),
        ("../a|text", "line 1: id '../a' must be a plain file name"),
        ("b/a|text", "id 'b/a' must be"),
        ("b\\a|text", "must be a plain file name"),
        ("|text", "id '' must be"),
        ("..|text", "id '..' must be"),
        ("\n \n", "is empty; expected lines such as"),
        (b"a|caf\xe9", "not UTF-8 .byte 5.; save it as UTF-8"),
        ("b|no such recording", "holds none of the 1 recordings.*b.wav"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, metadata, message):
    with pytest.raises(DataError, match=message):
        read_corpus(corpus_of(tmp_path / "c", metadata))


def test_paths_that_are_no_corpus(tmp_path):
    with pytest.raises(DataError, match=r"does not exist; expected a folder with metadata\.csv"):
        read_corpus(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no metadata\.csv"):
        read_corpus(tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file; expected a folder"):
        read_corpus(tmp_path / "file")
    (tmp_path / "folder" / "metadata.csv").mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be read"):
        read_corpus(tmp_path / "folder")


def test_digest_follows_the_content_and_not_the_place(tmp_path):
    def digest(name, metadata="a|x\nb|y", wavs=("a", "b")):
        folder = corpus_of(tmp_path / name, metadata, wavs)
        return corpus_digest(folder, read_corpus(folder))

    first = digest("first")
    assert digest("second") == first
    assert digest("text", metadata="a|x\nb|z") != first
    assert digest("missing", wavs=("a",)) != first
    swapped = corpus_of(tmp_path / "swapped", "a|x\nb|y", ("a", "b"))
    (swapped / "wavs" / "a.wav").rename(swapped / "wavs" / "c.wav")
    (swapped / "wavs" / "b.wav").rename(swapped / "wavs" / "a.wav")
    (swapped / "wavs" / "c.wav").rename(swapped / "wavs" / "b.wav")
    assert corpus_digest(swapped, read_corpus(swapped)) != first
    (tmp_path / "second" / "wavs" / "b.wav").write_bytes(b"another sound")
    assert corpus_digest(tmp_path / "second", read_corpus(tmp_path / "second")) != first
