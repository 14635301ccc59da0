"""How much the text matters, over the validations."""

import math
from collections.abc import Sequence

from tts.diagnostics.figures import HALF, line, sketch, whole_ticks
from tts.diagnostics.measured import Measured
from tts.diagnostics.page import Picture, show


def text_gain_picture(measured: Sequence[Measured]) -> tuple[Picture, ...]:
    """One picture, or none where snapshots do not tell."""
    points = [(item.snapshot.step, gain) for item in measured if math.isfinite(gain := item.snapshot.text_gain)]
    if not points:
        return ()
    steps, gains = zip(*points, strict=True)
    with sketch(HALF, "How many times worse recordings are foretold with texts of others, over training steps") as picture:
        axes = picture.axes("training step", "times the loss")
        line(axes, steps, gains, 0, "mel loss with texts of others over that with their own", marked=len(steps) <= 40)
        axes.axhline(1.0, color="#888888", linestyle="--", linewidth=1)
        axes.set_xlim(0, max(steps) * 1.02)
        axes.set_ylim(min(0.95, *gains) - 0.02, max(1.1, *gains) * 1.02)
        whole_ticks(axes)
    caption = (
        f"At the end: {show(gains[-1])}. How many times worse held-out recordings are foretold with each other's texts than with their own. "
        "At 1 the text does not matter: attention has not formed, or transcripts belong to other recordings."
    )
    return (Picture(picture.svg, caption, "Whether the text matters"),)
