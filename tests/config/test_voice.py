import pytest
from pydantic import ValidationError

from tts.config import AudioConfig


@pytest.mark.parametrize("length", [65, 1023])
def test_a_window_is_even(length):
    with pytest.raises(ValidationError, match=f"window_length must be even, got {length}"):
        AudioConfig(window_length=length, hop_length=16)


@pytest.mark.parametrize("trim_db", [1e-20, 0.5, 0.999])
def test_trimming_is_off_or_at_least_a_decibel(trim_db):
    with pytest.raises(ValidationError, match=r"trim_db must be 0 \(keep all\) or at least 1"):
        AudioConfig(trim_db=trim_db)


@pytest.mark.parametrize("trim_db", [0.0, 1.0])
def test_the_bounds_themselves_are_fine(trim_db):
    assert AudioConfig(trim_db=trim_db).trim_db == trim_db
