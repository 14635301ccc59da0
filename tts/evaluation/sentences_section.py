"""What the voice said: players and pictures beside the recordings, and a table of all sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tts.config import Config
from tts.diagnostics.figures import HALF
from tts.diagnostics.images import alignment_picture, colour_range, gate_picture, mel_picture
from tts.diagnostics.page import Block, Cell, Comparison, Fact, Picture, Section, Table, Take, show, wav_uri
from tts.evaluation.synthesis import Utterance
from tts.evaluation.verdict import Judged, attention_failed

AUDIO_BYTES = 4_000_000
"""Sound that a page may carry, as WAV; base64 makes it a third larger. Longer pages get slow to open and to mail."""


@dataclass(frozen=True)
class Sample:
    """A sentence as recorded and as spoken by the network."""

    judged: Judged
    reference_TM: npt.NDArray[np.float32]
    utterance: Utterance
    reference_wav: bytes
    generated_wav: bytes
    """Empty where there is nothing to hear: the spectrogram has one frame only, or values that are not finite."""


def listening_section(samples: Sequence[Sample], config: Config) -> Section:
    """Players and pictures. `config` is that of the run."""
    intro = (
        "Held-out sentences, never trained on. Left the recording, right what the network made of the text alone, turned into sound by Griffin-Lim. "
        "Both spectrograms share one colour scale and one time axis."
    )
    blocks: list[Block] = []
    left = AUDIO_BYTES
    for sample in samples:
        size = len(sample.reference_wav) + len(sample.generated_wav)
        blocks.append(_comparison(sample, config, audible=size <= left))
        left -= size if size <= left else 0
    return Section("listen", "Listen", intro, tuple(blocks))


def sentences_section(samples: Sequence[Sample]) -> Section:
    """A row for each sentence."""
    columns = ("clip", "text", "spoken, s", "recorded, s", "ended by", "distortion, dB", "diagonality", "coverage", "reading")
    rows = tuple(_row(sample.judged) for sample in samples)
    intro = "Every sentence of this evaluation. Distortion is measured between spectrograms along the best time warping, without the vocoder."
    return Section("sentences", "All sentences", intro, (Table(columns, rows, frozenset(columns) - {"clip", "text", "ended by", "reading"}),))


def _row(judged: Judged) -> tuple[str | Cell, ...]:
    attention = judged.attention
    return (
        judged.id,
        judged.text,
        show(judged.generated_seconds),
        show(judged.reference_seconds),
        Cell(judged.stop_reason, "" if judged.stop_reason == "gate" else "bad"),
        _finite(judged.mel_cepstral_distortion),
        _finite(attention["diagonality"]),
        _finite(attention["coverage"]),
        Cell(_reading(attention), "bad") if attention_failed(attention) else Cell("once through"),
    )


def _finite(value: float) -> Cell:
    return Cell(show(value), "" if np.isfinite(value) else "bad")


def _comparison(sample: Sample, config: Config, *, audible: bool) -> Comparison:
    judged, utterance, audio = sample.judged, sample.utterance, config.audio
    frames = max(len(sample.reference_TM), len(utterance.mel_TM))
    low, high = colour_range(sample.reference_TM)

    def take(name: str, mel_TM: npt.NDArray[np.float32], wav: bytes, caption: str, file: str) -> Take:
        absent = "" if audible else f"Left out to keep this page small; the sound is in audio/{judged.id}.{file}.wav."
        if not wav:
            absent = "It has no sound: it ended at once." if np.isfinite(mel_TM).all() else "It has no sound: it holds values that are not finite."
        picture = Picture(mel_picture(mel_TM, audio, size=HALF, frames=frames, low=low, high=high), caption)
        return Take(name, "" if absent else wav_uri(wav), absent, picture)

    return Comparison(
        title=judged.id,
        text=judged.text,
        facts=_facts(judged),
        takes=(
            take("Recorded", sample.reference_TM, sample.reference_wav, "Spectrogram of the recording.", "reference"),
            take("Generated", utterance.mel_TM, sample.generated_wav, "Spectrogram that the network wrote on its own.", "generated"),
        ),
        pictures=(
            Picture(alignment_picture(utterance.alignment_SN, judged.text, judged.generated_seconds), "", "Attention while it spoke"),
            Picture(
                gate_picture(utterance.gate_T, audio, size=HALF, threshold=config.synthesis.gate_threshold),
                f"Ended by the {judged.stop_reason} after {show(judged.generated_seconds)} s.",
                "Stop gate while it spoke",
            ),
        ),
    )


def _facts(judged: Judged) -> tuple[Fact, ...]:
    attention = judged.attention
    return (
        *([Fact("Speaker", judged.speaker)] if judged.speaker else []),
        Fact("Distortion", show(judged.mel_cepstral_distortion, unit="dB"), tone="" if np.isfinite(judged.mel_cepstral_distortion) else "bad"),
        Fact("Ended by", judged.stop_reason, tone="good" if judged.stop_reason == "gate" else "bad"),
        Fact("Length", f"{show(judged.generated_seconds)} s", f"recorded {show(judged.reference_seconds)} s"),
        Fact("Diagonality", show(attention["diagonality"])),
        Fact(
            "Reading",
            "failed" if attention_failed(attention) else "once through",
            _reading(attention),
            "bad" if attention_failed(attention) else "good",
        ),
    )


def _reading(attention: dict[str, float]) -> str:
    """What went wrong in reading, in words."""
    if not np.isfinite(attention["skips"]):
        return "the alignment is no attention"
    jumps = [f"{attention[name]:.0f} {name if attention[name] != 1 else name[:-1]}" for name in ("repetitions", "skips") if attention[name]]
    return ", ".join([*jumps, *([] if attention["end_reached"] else ["end not reached"])]) or "no repetition, no skip, end reached"
