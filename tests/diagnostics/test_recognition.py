from functools import cache

import torch
from hypothesis import given
from hypothesis import strategies as st

from tts.diagnostics.recognition import edit_distance, recognition_errors, spelled
from tts.model.recogniser import Recognition

words = st.lists(st.integers(0, 3), max_size=7)


@given(words, words)
def test_the_distance_is_that_of_the_recursion(said, text):
    @cache
    def distance(i, j):
        if not i or not j:
            return i + j
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (said[i - 1] != text[j - 1]))

    assert edit_distance(said, text) == distance(len(said), len(text))


def test_repetitions_run_together_and_blanks_part_them():
    path = torch.tensor([[3, 0, 0, 3, 0, 1, 1, 2, 2], [1, 1, 3, 3, 3, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0, 0]])
    logits_BSC = torch.nn.functional.one_hot(path, 4).float()
    assert spelled(logits_BSC, torch.tensor([9, 5, 0])) == [[0, 0, 1, 2], [1], []]


def test_errors_count_against_each_texts_own_labels():
    path = torch.tensor([[0, 1, 3, 1], [2, 3, 2, 0], [0, 1, 2, 0]])
    logits_BSC = torch.nn.functional.one_hot(path, 4).float()
    logits_BSC[2, 1, 1] = torch.nan
    labels_BN = torch.tensor([[0, 1, 1], [2, 1, 0], [0, 1, 2]])
    heard = Recognition(logits_BSC, labels_BN, torch.tensor([3, 1, 3]))
    assert recognition_errors(heard, torch.tensor([4, 3, 4])).tolist() == [0, 1, 3]
