"""Our features against librosa's on the clips of a demo corpus, one thread each; and the time that 10 minutes of demo corpus take.

Both sides start from the same samples and end at log mel frames: framing, transform, magnitude, mel projection, clamp, logarithm. librosa's side is
its parts with the filters computed once (`librosa.feature.melspectrogram` would compute them for every clip), its faster way. The two are
timed in turn in one process and the median ratio of the rounds counts.

    python -m tests.benchmarks.features
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tts.audio.mel import MelAnalysis
from tts.audio.wav import read_wav
from tts.config import AudioConfig
from tts.data.corpus import read_corpus
from tts.data.demo_corpus import write_demo_corpus
from tts.progress import Silent

UTTERANCES = 300
CLIPS = 60
ROUNDS = 15
Samples = NDArray[np.float32]


def measure() -> dict[str, float]:
    """feature_rate_vs_librosa above 1 speaks for ours; rates are frames per second of one core; demo_corpus_seconds is for 10 minutes of speech."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        made = write_demo_corpus(Path(folder) / "corpus", language="en", utterances=UTTERANCES, seed=0, progress=Silent())
        demo_corpus_seconds = (time.perf_counter() - start) * 600 / made.seconds
        config = AudioConfig()
        clips = [read_wav(clip.audio, config.sample_rate).samples for clip in read_corpus(Path(folder) / "corpus")[:CLIPS]]
    rates = {"ours": ours(config), "librosa": librosas(config)}
    seconds: dict[str, list[float]] = {name: [] for name in rates}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            for analyse in rates.values():
                analyse(clips)
            for _ in range(ROUNDS):
                for name, analyse in rates.items():
                    start = time.perf_counter()
                    analyse(clips)
                    seconds[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    frames = sum(MelAnalysis(config).frames(len(clip)) for clip in clips)
    return {
        "feature_rate_vs_librosa": median(theirs / mine for mine, theirs in zip(seconds["ours"], seconds["librosa"], strict=True)),
        "feature_frames_per_second": frames / median(seconds["ours"]),
        "librosa_frames_per_second": frames / median(seconds["librosa"]),
        "demo_corpus_seconds": demo_corpus_seconds,
    }


def ours(config: AudioConfig) -> Callable[[Sequence[Samples]], list[Samples]]:
    """Log mel frames (T, M) of each clip, by our analysis."""
    analysis = MelAnalysis(config)
    return lambda clips: [analysis(torch.from_numpy(clip)).numpy() for clip in clips]


def librosas(config: AudioConfig) -> Callable[[Sequence[Samples]], list[Samples]]:
    """Log mel frames (M, T) of each clip, by librosa."""
    filters = librosa.filters.mel(
        sr=config.sample_rate, n_fft=config.window_length, n_mels=config.mels, fmin=config.min_hz, fmax=config.max_hz, norm="slaney"
    )

    def analyse(clip: Samples) -> Samples:
        spectrum = librosa.stft(clip, n_fft=config.window_length, hop_length=config.hop_length, pad_mode="reflect")
        frames: Samples = np.log(np.maximum(filters @ np.abs(spectrum), config.log_floor))
        return frames

    return lambda clips: [analyse(clip) for clip in clips]


if __name__ == "__main__":
    json.dump(measure(), sys.stdout, indent=2)
    sys.stdout.write("\n")
