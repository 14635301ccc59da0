import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tts.audio.wav import LOUDEST, TooLongError, read_wav, wav_bytes, write_wav
from tts.errors import CannotWriteError, DataError


def tone(seconds, rate, hz=440.0):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def test_written_samples_come_back(tmp_path):
    samples = tone(0.2, 22050)
    write_wav(tmp_path / "a.wav", samples, 22050)
    recording = read_wav(tmp_path / "a.wav", 22050)
    np.testing.assert_allclose(recording.samples, samples, atol=1 / 32768)
    assert recording.samples.dtype == np.float32
    assert (recording.resampled, recording.mixed_down, recording.clipped_share) == (False, False, 0)
    assert soundfile.info(str(tmp_path / "a.wav")).subtype == "PCM_16"
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


@given(st.lists(st.floats(-4, 4, width=32), max_size=50))
def test_beyond_full_scale_is_clipped_not_wrapped(values):
    samples = np.array(values, dtype=np.float32)
    data = np.frombuffer(wav_bytes(samples, 16000)[44:], dtype="<i2")
    assert np.abs(data - np.clip(samples, -1, 32767 / 32768) * 32768).max(initial=0) <= 1


def test_stereo_is_averaged(tmp_path):
    left, right = tone(0.1, 22050, 300), tone(0.1, 22050, 500)
    soundfile.write(tmp_path / "a.wav", np.stack((left, right), axis=1), 22050, subtype="FLOAT")
    recording = read_wav(tmp_path / "a.wav", 22050)
    assert recording.mixed_down
    assert not recording.resampled
    np.testing.assert_allclose(recording.samples, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_resampling_keeps_the_tone(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(0.5, rate), rate, subtype="FLOAT")
    recording = read_wav(tmp_path / "a.wav", 22050)
    assert recording.resampled
    expected = tone(0.5, 22050)
    assert abs(len(recording.samples) - len(expected)) <= 1
    middle = slice(2000, 9000)
    np.testing.assert_allclose(recording.samples[middle], expected[middle], atol=1e-3)


def test_clipped_share_counts_samples_at_full_scale(tmp_path):
    samples = np.zeros(1000, dtype=np.int16)
    samples[:30], samples[30:50] = 32767, -32768
    soundfile.write(tmp_path / "a.wav", samples, 44100)
    assert read_wav(tmp_path / "a.wav", 22050).clipped_share == pytest.approx(0.05)


def test_other_formats_are_read_by_content(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(0.1, 22050), 22050)
    (tmp_path / "a.flac").rename(tmp_path / "a.wav")
    assert len(read_wav(tmp_path / "a.wav", 22050).samples) == 2205


@pytest.mark.parametrize("content", [b"", b"not a wav", b"RIFF\x00\x00\x00\x00WAVE"], ids=["empty", "text", "cut"])
def test_what_is_no_recording_is_named(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.wav cannot be read as audio: \w+"):
        read_wav(tmp_path / "a.wav", 22050)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"none\.wav cannot be read as audio"):
        read_wav(tmp_path / "none.wav", 22050)
    with pytest.raises(DataError, match="cannot be read as audio"):
        read_wav(tmp_path, 22050)


def test_samples_that_are_no_numbers(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0, np.nan, 0.1], dtype=np.float32), 22050, subtype="FLOAT")
    with pytest.raises(DataError, match="not finite"):
        read_wav(tmp_path / "a.wav", 22050)


def flac(path, total):
    """A second of sound in FLAC whose header claims `total` samples: the last 36 bits before the checksum of its first block."""
    soundfile.write(path, tone(1, 22050), 22050, format="FLAC")
    content = bytearray(path.read_bytes())
    content[21] = content[21] & 0xF0 | total >> 32
    content[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(content)


@pytest.mark.parametrize("total", [2**36 - 1, 2**31, 50_000, 0], ids=["all bits", "gigabytes", "twice", "unknown"])
def test_a_header_that_claims_more_than_there_is(tmp_path, total):
    flac(tmp_path / "a.wav", total)
    with pytest.raises(DataError, match=r"a\.wav cannot be read as audio: \w+"):
        read_wav(tmp_path / "a.wav", 22050)


def test_a_file_cut_in_half(tmp_path):
    soundfile.write(tmp_path / "a.mp3", tone(1, 22050), 22050)
    content = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.wav").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut short \([\d,]+ of 22,050 samples\)"):
        read_wav(tmp_path / "a.wav", 22050)


def test_silence_is_as_dense_as_a_file_gets(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(22050 * 600, dtype=np.float32), 22050, format="FLAC")
    assert len(read_wav(tmp_path / "a.wav", 22050).samples) == 22050 * 600


def test_too_long_is_seen_in_the_header(tmp_path):
    write_wav(tmp_path / "a.wav", tone(2, 16000), 16000)
    assert len(read_wav(tmp_path / "a.wav", 16000, longest=2).samples) == 32000
    with pytest.raises(TooLongError, match=r"lasts 2\.0 s by its header"):
        read_wav(tmp_path / "a.wav", 16000, longest=1.9)


def test_no_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 22050)
    with pytest.raises(DataError, match=r"a\.wav holds no samples"):
        read_wav(tmp_path / "a.wav", 22050)


@pytest.mark.parametrize("level", [3e38, -3e38, 1.1 * LOUDEST])
def test_levels_far_beyond_full_scale_are_damage(tmp_path, level):
    samples = np.stack((tone(0.1, 22050), tone(0.1, 22050)), axis=1)
    samples[100] = level
    soundfile.write(tmp_path / "a.wav", samples, 22050, subtype="FLOAT")
    with pytest.raises(DataError, match="far beyond full scale"):
        read_wav(tmp_path / "a.wav", 16000)
    soundfile.write(tmp_path / "a.wav", np.clip(samples, -LOUDEST, LOUDEST), 22050, subtype="FLOAT")
    assert np.isfinite(read_wav(tmp_path / "a.wav", 16000).samples).all()


def test_clipping_is_measured_in_each_channel(tmp_path):
    """Mixed with a quiet channel, no sample would stand at full scale."""
    quiet, loud = np.zeros(1000, dtype=np.int16), np.zeros(1000, dtype=np.int16)
    loud[:100] = 32767
    soundfile.write(tmp_path / "a.wav", np.stack((quiet, loud), axis=1), 22050)
    assert read_wav(tmp_path / "a.wav", 22050).clipped_share == pytest.approx(0.05)


def test_resampling_removes_what_the_new_rate_cannot_carry(tmp_path):
    """15 kHz would come out as a loud 7.05 kHz."""
    soundfile.write(tmp_path / "a.wav", tone(0.5, 44100, hz=15_000), 44100, subtype="FLOAT")
    assert np.abs(read_wav(tmp_path / "a.wav", 22050).samples[500:-500]).max() < 1e-4


def test_a_file_in_the_way_of_the_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError, match="a file is in the way"):
        write_wav(tmp_path / "file" / "a.wav", tone(0.1, 22050), 22050)
