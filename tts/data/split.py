"""Which utterances are held out."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tts.config import DataConfig
from tts.errors import DataError


def split(texts: Sequence[str], config: DataConfig, speakers: Sequence[str] = ()) -> NDArray[np.bool_]:
    """(U,) True where an utterance is held out, by its normalised text: all takes of one text fall on the same side.

    Texts are held out in the order of their hashes with the seed, as far as their takes fit into the share (at least the text with the fewest
    takes), so that a clip more or less moves few others. Of several speakers each has a text held out first, as far as the share goes, and each
    keeps one that is trained on. Raises DataError for fewer than two texts.
    """
    takes = Counter(texts)
    if len(takes) < 2:
        different = f" that say {len(takes)} text" if len(texts) > 1 else ""
        raise DataError(f"{len(texts)} usable clips{different} are too few: at least one text is trained on and another is held out")
    count = min(config.held_out_max, max(1, round(config.held_out_share * len(texts))))
    ranked = sorted(takes, key=lambda text: hashlib.sha256(f"{config.split_seed}:{text}".encode()).digest())
    said_by = {text: set[str]() for text in ranked}
    for text, speaker in zip(texts, speakers or [""] * len(texts), strict=True):
        said_by[text].add(speaker)
    # First one for each speaker, then as many as fit.
    chosen: list[str] = []
    for speaker in sorted(set(speakers)):
        if not any(speaker in said_by[text] for text in chosen):
            chosen += _fitting([text for text in ranked if speaker in said_by[text]], chosen, takes, said_by, count)[:1]
    chosen += _fitting(ranked, chosen, takes, said_by, count)
    held_out = set(chosen) or {min(ranked, key=takes.__getitem__)}
    return np.array([text in held_out for text in texts])


def _fitting(ranked: Sequence[str], chosen: Sequence[str], takes: Counter[str], said_by: dict[str, set[str]], count: int) -> list[str]:
    """Further texts, in their order, whose takes fit beside those chosen and leave each speaker something to train on."""
    rest = count - sum(takes[text] for text in chosen)
    left = Counter(speaker for text, speakers in said_by.items() if text not in chosen for speaker in speakers)
    more: list[str] = []
    for text in ranked:
        if text not in chosen and takes[text] <= rest and all(left[speaker] > 1 for speaker in said_by[text]):
            more.append(text)
            rest -= takes[text]
            left.subtract(said_by[text])
    return more
