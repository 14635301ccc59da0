"""How much of a text the recogniser hears in what the decoder says: character error rate of its best guess.

Shape letters: B batch, N symbols, S decoder steps, C classes, the blank last.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tts.model.recogniser import Recognition


def recognition_errors(heard: Recognition, step_lengths_B: Tensor) -> Tensor:
    """(B,) int64 on the CPU: insertions, deletions and substitutions of single symbols between what was heard and each text's labels.

    Logits that are not finite spell nothing that could be trusted: every label then counts as an error, and nothing more.
    """
    texts = zip(heard.labels_BN.tolist(), heard.label_lengths_B.tolist(), strict=True)
    labels = [row[:length] for row, length in texts]
    return torch.tensor([edit_distance(said, text) for said, text in zip(spelled(heard.logits_BSC, step_lengths_B), labels, strict=True)])


def error_rates(heard: Recognition, step_lengths_B: Tensor) -> list[float]:
    """Errors of each row, a label of its text: 0 for what is heard word for word, above 1 for more errors than labels. NaN without labels."""
    errors, labels = recognition_errors(heard, step_lengths_B).tolist(), heard.label_lengths_B.tolist()
    return [wrong / length if length else math.nan for wrong, length in zip(errors, labels, strict=True)]


def spelled(logits_BSC: Tensor, step_lengths_B: Tensor) -> list[list[int]]:
    """Each row's likeliest class in each of its steps, repetitions run together, then blanks left out (Graves et al. 2006, best path decoding)."""
    blank = logits_BSC.shape[2] - 1
    finite_B = logits_BSC.isfinite().flatten(1).all(1).tolist()
    likeliest = logits_BSC.argmax(2).tolist()
    rows = [row[:steps] if finite else [] for row, steps, finite in zip(likeliest, step_lengths_B.tolist(), finite_B, strict=True)]
    return [[number for step, number in enumerate(row) if number != blank and row[step - 1 : step] != [number]] for row in rows]


def edit_distance(said: Sequence[int], text: Sequence[int]) -> int:
    """Levenshtein's distance: the least number of insertions, deletions and substitutions that make one of the other."""
    places = np.arange(len(text) + 1)
    distance = places
    for number in said:
        kept = np.concatenate([[distance[0] + 1], np.minimum(distance[1:] + 1, distance[:-1] + (np.asarray(text) != number))])
        # A deletion costs one a place: the least over all places before is a running minimum of what is above the diagonal.
        distance = np.minimum.accumulate(kept - places) + places
    return int(distance[-1])
