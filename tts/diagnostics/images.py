"""Pictures of single utterances: alignments, stop gates, mel spectrograms.

Shape letters: S decoder steps, N symbols, T frames, M mels.
"""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from tts.config import AudioConfig
from tts.diagnostics.figures import COLOURS, TALL, Sketch, heat, legend_above, sketch
from tts.diagnostics.gate import THRESHOLD

Floats = npt.NDArray[np.floating]


COLUMNS = 600
"""Columns of pixels of a spectrogram, at most."""


def seconds(frames: float, audio: AudioConfig) -> float:
    """Length of mel frames."""
    return frames * audio.hop_length / audio.sample_rate


def alignment_picture(alignment_SN: Floats, text: str, duration: float, *, size: tuple[float, float] = TALL) -> Markup:
    """Attention of one utterance of `duration` seconds: time to the right, the text's words upwards, bright where a step attends."""
    steps, count = alignment_SN.shape
    with sketch(size, f"Attention weights over {steps} decoder steps and {count} symbols of: {text}") as picture:
        axes = picture.axes("time, seconds", "")
        if steps and count:
            image = heat(axes, alignment_SN.T, extent=(0, duration, -0.5, count - 0.5), low=0, high=1, colours="viridis")
            _colour_bar(picture, axes, image, "weight")
        else:
            axes.text(0.5, 0.5, "no decoder step", transform=axes.transAxes, ha="center", va="center")
        _name_words(axes, text, count, room=int((size[1] - 0.6) * 72 / 8))
    return picture.svg


def _name_words(axes: Axes, text: str, count: int, room: int) -> None:
    """Writes each word beside its symbols, as far as `room` lines allow; the last symbol ends the sequence."""
    if len(text) + 1 != count:
        axes.set_ylabel("symbol number")
        return
    words = [(match.group(), (match.start() + match.end() - 1) / 2) for match in re.finditer(r"\S+", text)]
    apart = count / max(room, 1)
    shown: list[tuple[str, float]] = []
    for word, centre in words:
        if (not shown or centre - shown[-1][1] >= apart) and count - 1 - centre >= apart:
            shown.append((word, centre))
    shown.append(("end", count - 1))
    axes.set_yticks([centre for _, centre in shown], labels=[word for word, _ in shown])
    axes.tick_params(axis="y", length=0, pad=3)
    for match in re.finditer(r"\s", text):
        axes.axhline(match.start(), color="white", linewidth=0.4, alpha=0.35)


def alignment_strip(alignments: Sequence[tuple[int, Floats]], *, size: tuple[float, float]) -> Markup:
    """One utterance's attention (S, N) at several training steps, side by side."""
    with sketch(size, "Attention of one utterance at successive training steps") as picture:
        panels = picture.figure.subplots(1, len(alignments), sharey=True, squeeze=False)[0]
        for axes, (step, alignment_SN) in zip(panels, alignments, strict=True):
            steps, count = alignment_SN.shape
            heat(axes, alignment_SN.T, extent=(-0.5, steps - 0.5, -0.5, count - 0.5), low=0, high=1, colours="viridis")
            axes.set_title(f"training step {step:,}" if axes is panels[0] else f"{step:,}")
        panels[0].set_ylabel("symbol number")
        picture.figure.supxlabel("decoder step", fontsize=9)
    return picture.svg


def gate_picture(
    gate_T: Floats, audio: AudioConfig, *, size: tuple[float, float], true_frames: int | None = None, threshold: float = THRESHOLD
) -> Markup:
    """Stop gate's probability over time, with the threshold and, where it is known, the true last frame."""
    with sketch(size, "Probability of the stop gate over time") as picture:
        axes = picture.axes("time, seconds", "probability of the end")
        time = [seconds(frame + 1, audio) for frame in range(len(gate_T))]
        axes.plot(time, gate_T, color=COLOURS[0], label="stop gate", linewidth=1)
        axes.axhline(threshold, color="#888888", linestyle="--", linewidth=1, label=f"threshold {threshold:g}")
        if true_frames is not None:
            axes.axvline(seconds(true_frames, audio), color=COLOURS[1], linestyle=":", linewidth=1.5, label="true end")
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlim(left=0)
        legend_above(axes)
    return picture.svg


def mel_picture(mel_TM: Floats, audio: AudioConfig, *, size: tuple[float, float], frames: int, low: float, high: float) -> Markup:
    """A log mel spectrogram on a time axis of `frames` frames and a colour scale from `low` to `high`, so that two can be compared."""
    with sketch(size, f"Mel spectrogram of {len(mel_TM)} frames") as picture:
        axes = picture.axes("time, seconds", f"mel band, {audio.min_hz:,.0f} to {audio.max_hz:,.0f} Hz")
        bands = mel_TM.shape[1]
        axes.set(xlim=(0, seconds(max(frames, 1), audio)), ylim=(-0.5, bands - 0.5))
        if len(mel_TM):
            shown = np.clip(np.nan_to_num(_pooled(mel_TM), nan=low, posinf=high, neginf=low), low, high)
            image = heat(axes, shown.T, extent=(0, seconds(len(mel_TM), audio), -0.5, bands - 0.5), low=low, high=high, colours="magma")
            axes.set_xlim(0, seconds(max(frames, 1), audio))
            _colour_bar(picture, axes, image, "log magnitude")
        else:
            axes.text(0.5, 0.5, "no frame", transform=axes.transAxes, ha="center", va="center")
    return picture.svg


def colour_range(mel_TM: Floats) -> tuple[float, float]:
    """Lower and upper end of a spectrogram's colours: its 1st and 99.9th percentile, so that a click does not darken the rest."""
    finite = mel_TM[np.isfinite(mel_TM)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, (1, 99.9))
    return float(low), float(max(high, low + 1e-3))


def _pooled(mel_TM: Floats) -> Floats:
    """At most COLUMNS rows: neighbouring frames of a longer spectrogram as their mean, because a page shows no more and gets large."""
    return np.stack([frames.mean(0) for frames in np.array_split(mel_TM, COLUMNS)]) if len(mel_TM) > COLUMNS else mel_TM


def _colour_bar(picture: Sketch, axes: Axes, image: AxesImage, label: str) -> None:
    bar = picture.figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01, label=label)
    bar.outline.set_visible(False)
