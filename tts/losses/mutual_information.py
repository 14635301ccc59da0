"""Mutual information between text and speech (Liu et al. 2019, arXiv:1909.01145): the recogniser must spell the text from the decoder's states.

Connectionist temporal classification (Graves et al. 2006), the blank last, over an utterance's own S decoder steps, divided by S. Spelling L labels
takes L steps and one more between two that are equal: an utterance with fewer, whose cost would be infinite, is left out and counted. It
still counts in the mean, so that an utterance weighs the same whatever it is batched with.

Shape letters: B batch, N symbols, S decoder steps, C classes.
"""

from torch import Tensor
from torch.nn import functional

from tts.data.batch import length_mask
from tts.model.recogniser import Recognition

HIGHEST_LOGIT = 1e6
"""torch's gradient of CTC is the exponential of a difference between sums over steps. Up to here it is sure to be finite in float64, for any
number of steps; a network that goes beyond has no use for the difference."""


def mutual_information_loss(heard: Recognition, step_lengths_B: Tensor, *, all_utterances: int | None = None) -> Tensor:
    """Mean over utterances: nats a step, scalar in float32 (float64 stays). Computed in float64; 0 if there is no step.

    With `all_utterances`, the mean's share that comes from these rows of a batch of so many: shares add up to its mean. CUDA waits here for the
    lengths, which torch's CTC reads on the CPU.
    """
    logits_BSC = heard.logits_BSC
    if not logits_BSC.shape[1]:  # torch refuses to spell out of nothing
        return logits_BSC.sum()
    counted_B = has_room(heard, step_lengths_B)
    log_probabilities_SBC = logits_BSC.double().clamp(-HIGHEST_LOGIT, HIGHEST_LOGIT).log_softmax(2).transpose(0, 1)
    costs_B = functional.ctc_loss(
        log_probabilities_SBC,
        heard.labels_BN,
        step_lengths_B.where(counted_B, 1),  # an empty text in one step: finite, and no gradient comes of it
        heard.label_lengths_B.where(counted_B, 0),
        blank=logits_BSC.shape[2] - 1,
        reduction="none",
    )
    costs_B = (costs_B / step_lengths_B.clamp(min=1)).masked_fill(~counted_B, 0)
    averaged = len(step_lengths_B) if all_utterances is None else all_utterances
    return costs_B.sum().div(max(averaged, 1)).to(logits_BSC.dtype)


def has_room(heard: Recognition, step_lengths_B: Tensor) -> Tensor:
    """(B,) bool: the utterance has a step, and enough of them to spell its labels."""
    labels_BN, lengths_B = heard.labels_BN, heard.label_lengths_B
    equal_BN = (labels_BN[:, 1:] == labels_BN[:, :-1]) & length_mask(lengths_B - 1, max(labels_BN.shape[1] - 1, 0))
    return step_lengths_B >= (lengths_B + equal_BN.sum(1)).clamp(min=1)


def left_out(heard: Recognition, step_lengths_B: Tensor) -> Tensor:
    """How many utterances have too few steps: scalar. Rows of padding are no utterances."""
    return (~has_room(heard, step_lengths_B) & (step_lengths_B > 0)).sum()
