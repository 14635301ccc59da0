"""Measures of utterances as one figure each."""

from torch import Tensor


def aggregate(measures: dict[str, Tensor]) -> dict[str, float]:
    """The mean over utterances of each measure, and `invalid`: how many utterances were.

    One invalid utterance makes the means NaN: a mean of the others would hide it. No utterance at all is NaN too.
    """
    valid_B = measures["valid"]
    means = {name: float(value_B.float().mean()) for name, value_B in measures.items() if name != "valid"}
    return means | {"invalid": float((~valid_B).sum())}
