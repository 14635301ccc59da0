"""Device and number format of the forward and backward pass. Weights, Adam's state and losses are float32 in all of them.

fp32 is the reference. bf16 needs a device that has it natively: emulated, it was 12 times slower than fp32 on a CPU with AVX2.
fp16 needs CUDA, torch has no half-precision LSTM on a CPU; it goes with a gradient scaler, whose overflows are part of its work.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch.amp.autocast_mode import autocast
from torch.amp.grad_scaler import GradScaler

from tts.errors import UsageError

PrecisionName = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[PrecisionName, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

LOWEST_SCALE = 1.0
"""Gradients that overflow fp16 although the scaler no longer enlarges them are not the scaler's doing."""


@dataclass(frozen=True)
class Precision:
    """A number format on a device."""

    name: PrecisionName
    device: torch.device

    def autocast(self) -> autocast:
        """Context of the forward pass; without effect in fp32."""
        return autocast(self.device.type, dtype=DTYPES[self.name], enabled=self.name != "fp32")

    def scaler(self) -> GradScaler:
        """Gradient scaler for fp16; elsewhere one that passes everything through."""
        return GradScaler(self.device.type, enabled=self.name == "fp16")


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device of `training.device`. Raises UsageError when CUDA is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("training.device is cuda but torch finds no CUDA device here; set --training.device cpu or auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def choose_precision(name: PrecisionName, device: torch.device) -> Precision:
    """Raises UsageError for bf16 where the device would have to emulate it, and for fp16 without CUDA."""
    if name == "fp16" and device.type != "cuda":
        raise UsageError(f"training.precision is fp16, which needs CUDA, but the device is {device.type}; set --training.precision fp32")
    native = bf16_on_cuda() if device.type == "cuda" else bf16_on_cpu(torch.cpu.get_capabilities())
    if name == "bf16" and not native:
        raise UsageError(
            f"training.precision is bf16 but this {device.type} device has no native bf16, and emulation is slow; set --training.precision fp32"
        )
    return Precision(name, device)


def bf16_on_cuda() -> bool:
    """Whether the current CUDA device computes in bf16 itself."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def bf16_on_cpu(capabilities: Mapping[str, object]) -> bool:
    """Whether torch.cpu.get_capabilities() lists a bf16 instruction set: avx512_bf16, amx_bf16 or Arm's."""
    return any(name.endswith("bf16") and bool(present) for name, present in capabilities.items())
