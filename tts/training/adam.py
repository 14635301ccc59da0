"""Adam without torch.compile, which this program never calls.

torch's optimisers load its compiler when the first one is made, for decorators that matter under it alone: seconds and 160 MiB in each process
that trains (torch 2.15). Here are the same methods without these decorators. The state and what an update comes to are torch's own.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import optim

_Method = Callable[..., Any]


def _plain(method: _Method) -> _Method:
    """What torch decorated. Raises RuntimeError where it decorates no longer."""
    plain: _Method = inspect.unwrap(method)
    if plain is method:
        raise RuntimeError(f"torch {torch.__version__} does not decorate {method.__qualname__}; take tts/training/adam.py out")
    return plain


class Adam(optim.Adam):
    """torch's, with gradients off in `step` as there."""

    add_param_group = _plain(optim.Optimizer.add_param_group)
    zero_grad = _plain(optim.Optimizer.zero_grad)
    state_dict = _plain(optim.Optimizer.state_dict)
    load_state_dict = _plain(optim.Optimizer.load_state_dict)
    step = torch.no_grad()(_plain(optim.Adam.step))
