"""The training loss: every term by name, and their weighted sum. All in float32 whatever the autocast type, all masked by true lengths."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tts.config import Config
from tts.data.batch import Batch
from tts.losses.gate import gate_loss
from tts.losses.guided_attention import guided_attention_loss, guided_attention_weight
from tts.losses.mel import mel_loss
from tts.model.frames import step_lengths
from tts.model.output import Tacotron2Output


@dataclass(frozen=True)
class Losses:
    """Scalars with their graph."""

    total: Tensor
    """What is minimised: the terms times their weights at this step."""
    terms: dict[str, Tensor]
    """Each term by name, without its weight."""


def total_loss(output: Tacotron2Output, batch: Batch, config: Config, step: int) -> Losses:
    """Losses of a teacher-forced batch at training step `step`, which sets the weight of guided attention.

    Of a part of a batch they are its share: the losses of all parts add up to those of the whole.
    """
    reduction_factor = output.reduction_factor
    all_B = batch.all_mel_lengths
    with torch.autocast(batch.mel_BTM.device.type, enabled=False):
        terms = {
            "mel_before": mel_loss(output.mel_BTM, batch.mel_BTM, batch.mel_lengths_B, config.losses.mel, all_lengths_B=all_B),
            "mel_after": mel_loss(output.mel_post_BTM, batch.mel_BTM, batch.mel_lengths_B, config.losses.mel, all_lengths_B=all_B),
            "gate": gate_loss(
                output.gate_logits_BT,
                batch.mel_lengths_B,
                reduction_factor=reduction_factor,
                positive_weight=config.losses.gate_positive_weight,
                all_lengths_B=all_B,
            ),
            "guided_attention": guided_attention_loss(
                output.alignment_BSN,
                batch.symbol_lengths_B,
                step_lengths(batch.mel_lengths_B, reduction_factor),
                config.guided_attention.sigma,
                all_step_lengths_B=step_lengths(all_B, reduction_factor),
            ),
        }
    weights = {
        "mel_before": 1.0,
        "mel_after": 1.0,
        "gate": config.losses.gate_weight,
        "guided_attention": guided_attention_weight(config.guided_attention, step),
    }
    # A term of weight 0 is reported but stays out of the sum: its backward pass is saved, and 0 * inf cannot arise.
    weighted = [weight * terms[name] for name, weight in weights.items() if weight > 0]
    return Losses(total=torch.stack(weighted).sum(), terms=terms)
