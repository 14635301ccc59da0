"""Frames into decoder steps and back, for any number of frames and any reduction factor.

A decoder step writes r frames. Teacher forcing feeds it the last frame of the step before (Wang et al. 2017, arXiv:1703.10135,
section 3.3; ESPnet and Coqui do the same, NVIDIA/tacotron2 feeds all r): the prenet then has one shape for every r, and synthesis leans
on its own newest frame alone. Of the mel and gate projections a step at r uses those of its first r frames, so r may fall in the course of
training.

Shape letters: B batch, T frames, S = ceil(T / r) decoder steps, r reduction factor, M mels.
"""

import torch
from torch import Tensor
from torch.nn import functional


def step_count(frames: int, reduction_factor: int) -> int:
    """Decoder steps that write `frames` frames: the last may be partly padding."""
    return -(-frames // reduction_factor)


def step_lengths(frame_lengths_B: Tensor, reduction_factor: int) -> Tensor:
    """(B,) int64: `step_count` of each row."""
    return torch.div(frame_lengths_B + (reduction_factor - 1), reduction_factor, rounding_mode="floor")


def pad_frames(mel_BTM: Tensor, frames: int) -> Tensor:
    """(B, frames, M): zeros appended up to `frames`, which is at least T."""
    return functional.pad(mel_BTM, (0, 0, 0, frames - mel_BTM.shape[1]))


def steps_of_frames(mel_BTM: Tensor, reduction_factor: int) -> Tensor:
    """(B, S, r, M): frame t is at [t // r, t % r]; zeros fill the last step. Any T from 0, any memory layout."""
    batch, frames, mels = mel_BTM.shape
    steps = step_count(frames, reduction_factor)
    return pad_frames(mel_BTM, steps * reduction_factor).reshape(batch, steps, reduction_factor, mels)


def frames_of_steps(steps_BSRM: Tensor) -> Tensor:
    """(B, S * r, M): the inverse of `steps_of_frames`, its padding still there."""
    batch, steps, reduction_factor, mels = steps_BSRM.shape
    return steps_BSRM.reshape(batch, steps * reduction_factor, mels)


def decoder_inputs(mel_BTM: Tensor, reduction_factor: int) -> Tensor:
    """(B, S, M): for each step the last frame of the step before; zeros, the go frame, for the first."""
    last_BSM = steps_of_frames(mel_BTM, reduction_factor)[:, :, -1]
    return functional.pad(last_BSM, (0, 0, 1, 0))[:, : last_BSM.shape[1]]


def frames_per_step(mel_BTM: Tensor, alignment_BSN: Tensor) -> int:
    """r, by the shapes: it may change in the course of training, so an output itself tells it. 1 where there is no step."""
    frames, steps = mel_BTM.shape[1], alignment_BSN.shape[1]
    return frames // steps if steps else 1
