"""What the process of a next trial loads while it waits, and when it had better not wait at all. Runs in that process."""

from pathlib import Path
from typing import Literal, cast

import torch

from tts.data.store import FeatureStore
from tts.memory import available_memory
from tts.training.joining import ALONE_PLACE, Place, take_device
from tts.training.precision import choose_device

SHARE = 0.1
"""A spare is kept only where it takes at most this share of what is available, on the host and on the device."""
HOST_BYTES = {"cpu": 2**28, "cuda": 3 * 2**30}
"""Reckoned for a waiting process and the start of its training; with CUDA's libraries in it on a GPU."""
CONTEXT_BYTES = 2**29
"""Reckoned for CUDA's context on the device."""


def load(features: Path, device_name: str, place: Place = ALONE_PLACE) -> FeatureStore | None:
    """Maps the features and makes CUDA's context where the trial will want it; None where memory is short. Raises UsageError, DataError."""
    device = choose_device(cast(Literal["auto", "cpu", "cuda"], device_name))
    if not affordable(HOST_BYTES[device.type] * place.here, available_memory()):
        return None
    store = FeatureStore.open(features)
    if device.type == "cuda":
        take_device(place)
        torch.zeros(1, device=device)  # makes the context
        free, _ = torch.cuda.mem_get_info(device)
        if not affordable(CONTEXT_BYTES, free):
            return None
    return store


def affordable(cost: int, available: int) -> bool:
    """Whether the trial under way can spare as much."""
    return cost <= SHARE * available
