"""Clips into features, several at a time."""

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from tts.audio.mel import MelAnalysis
from tts.audio.silence import trim
from tts.audio.wav import TooLongError, read_wav
from tts.config import Config
from tts.data.clip import Clip
from tts.data.parallel import in_order
from tts.data.quality import Measures, Rejection, check_clip
from tts.errors import DataError
from tts.text import Encoded, text_to_symbols
from tts.text.symbols import UnknownSymbolError

FAR_TOO_LONG = 4
"""Times quality.max_seconds beyond which a recording is rejected undecoded. Not 1, because silence at its ends does not count."""


@dataclass(frozen=True)
class Extracted:
    """A clip that passed the checks that concern it alone."""

    clip: Clip
    encoded: Encoded
    mel: NDArray[np.float32]
    """(T, M)"""
    measures: Measures


def extract(clip: Clip, config: Config) -> Extracted | Rejection:
    """Text, mel and measures of one clip, or why it is rejected."""
    try:
        encoded = text_to_symbols(clip.text, config.text)
    except UnknownSymbolError as error:
        return Rejection(clip.id, "unknown_symbol", str(error))
    try:
        recording = read_wav(clip.audio, config.audio.sample_rate, longest=FAR_TOO_LONG * config.quality.max_seconds)
    except TooLongError as error:
        detail = f"{error}, more than {FAR_TOO_LONG} times quality.max_seconds ({config.quality.max_seconds})"
        return Rejection(clip.id, "too_long", detail)
    except DataError as error:
        return Rejection(clip.id, "unreadable", str(error))
    samples = trim(recording.samples, config.audio)
    measures = Measures(
        id=clip.id,
        text=encoded.text,
        seconds=len(samples) / config.audio.sample_rate,
        trimmed_seconds=(len(recording.samples) - len(samples)) / config.audio.sample_rate,
        peak=float(np.abs(samples).max(initial=0)),
        clipped_share=recording.clipped_share,
        digest=hashlib.sha256(samples.tobytes()).hexdigest(),
        resampled=recording.resampled,
        mixed_down=recording.mixed_down,
        dropped_characters=encoded.dropped,
        speaker=clip.speaker,
    )
    rejection = check_clip(measures, config.quality)
    if rejection is not None:
        return rejection
    try:
        mel = MelAnalysis(config.audio)(torch.from_numpy(samples)).numpy()
    except DataError as error:
        return Rejection(clip.id, "too_short", str(error))
    return Extracted(clip, encoded, mel, measures)


def extract_all(clips: Sequence[Clip], config: Config) -> Generator[Extracted | Rejection, None, None]:
    """Extracts on every core, in the order of the clips.

    On threads: decoding, resampling and analysis run outside Python's lock, nothing is copied between processes, and an interrupt reaches the
    one process that there is.
    """
    with _one_torch_thread():
        yield from in_order(partial(extract, config=config), clips)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    # Clips run side by side; threads inside each would only compete. The setting is global, so it is put back.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
