"""Weights from a checkpoint into a network, if they are of the same architecture."""

from collections.abc import Mapping

from torch import Tensor, nn

from tts.errors import DataError

NAMED = 8
"""Tensors that an error names; of the others it says how many."""


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Takes over all weights and statistics, or none: raises DataError naming tensors of another architecture, with both shapes.

    `source` says in the error where the weights came from.
    """
    expected = model.state_dict()
    different = [
        f"{name} is {_shape(weights[name])} there and {_shape(tensor)} here" if name in weights else f"{name} ({_shape(tensor)}) is not there"
        for name, tensor in expected.items()
        if name not in weights or weights[name].shape != tensor.shape
    ]
    different += [f"{name} ({_shape(tensor)}) is unknown here" for name, tensor in weights.items() if name not in expected]
    if different:
        more = f"; and {len(different) - NAMED} more" if len(different) > NAMED else ""
        raise DataError(
            f"{source} holds a network of another architecture than its configuration has in this version: {'; '.join(different[:NAMED])}{more}; "
            f"use the version that wrote it, or train anew"
        )
    model.load_state_dict(weights)


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"
