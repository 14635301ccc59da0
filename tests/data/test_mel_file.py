import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.data.mel_file import MelFile


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12), st.integers(1, 4))
def test_kept_blocks_in_their_order(tmp_path_factory, blocks, mels):
    path = tmp_path_factory.mktemp("mels") / "mels.npy"
    random = np.random.default_rng(0)
    written = [random.normal(size=(frames, mels)).astype(np.float32) for frames, _ in blocks]
    with MelFile(path, mels) as file:
        for mel in written:
            file.append(mel)
        file.keep([kept for _, kept in blocks])
        assert file.lengths == [frames for frames, kept in blocks if kept]
    expected = [np.zeros((0, mels), np.float32), *(mel for mel, (_, kept) in zip(written, blocks, strict=True) if kept)]
    read = np.load(path, mmap_mode=None)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, np.concatenate(expected))


def test_views_are_written_as_they_look(tmp_path):
    mel = np.arange(24, dtype=np.float32).reshape(4, 6)
    with MelFile(tmp_path / "mels.npy", 4) as file:
        file.append(mel.T)
        file.append(mel.T[::2])
    np.testing.assert_array_equal(np.load(tmp_path / "mels.npy"), np.concatenate((mel.T, mel.T[::2])))


def test_more_frames_than_the_first_header_had_digits(tmp_path):
    with MelFile(tmp_path / "mels.npy", 1) as file:
        for _ in range(3):
            file.append(np.ones((500_000, 1), dtype=np.float32))
    assert np.load(tmp_path / "mels.npy", mmap_mode="r").shape == (1_500_000, 1)


def test_an_error_closes_the_file(tmp_path):
    with pytest.raises(ValueError, match="mine"), MelFile(tmp_path / "mels.npy", 2) as file:
        raise ValueError("mine")
    with pytest.raises(ValueError, match="closed"):
        file.append(np.zeros((1, 2), dtype=np.float32))
