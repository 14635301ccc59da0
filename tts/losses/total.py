"""The training loss: every term by name, and their weighted sum. All in float32 whatever the autocast type, all masked by true lengths."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tts.config import Config
from tts.data.batch import Batch
from tts.losses.consistency import attention_consistency_loss
from tts.losses.gate import gate_loss
from tts.losses.guided_attention import guided_attention_loss, guided_attention_weight
from tts.losses.mel import mel_loss
from tts.losses.mutual_information import left_out, mutual_information_loss
from tts.model.decoder import DecoderOutput
from tts.model.frames import step_lengths
from tts.model.output import Tacotron2Output


@dataclass(frozen=True)
class Losses:
    """Scalars with their graph."""

    total: Tensor
    """What is minimised: the terms times their weights at this step."""
    terms: dict[str, Tensor]
    """Each term by name, without its weight."""
    counts: dict[str, Tensor] = field(default_factory=dict)
    """Of utterances that a term leaves out, by name."""


def total_loss(output: Tacotron2Output, batch: Batch, config: Config, step: int) -> Losses:
    """Losses of a teacher-forced batch at training step `step`, which sets the weight of guided attention.

    Of a part of a batch they are its share: the losses of all parts add up to those of the whole.
    """
    counts: dict[str, Tensor] = {}
    with torch.autocast(batch.mel_BTM.device.type, enabled=False):
        terms = _speaking(output, batch, config)
        if output.coarse:
            terms |= _coarse(output, output.coarse, batch, config)
        if output.recognition:
            steps_B = step_lengths(batch.mel_lengths_B, output.reduction_factor)
            terms["mutual_information"] = mutual_information_loss(output.recognition, steps_B, all_utterances=len(batch.all_ids))
            counts["left_out_utterances"] = left_out(output.recognition, steps_B)
    weights = _weights(config, step)
    # A term of weight 0 is reported but stays out of the sum: its backward pass is saved, and 0 * inf cannot arise.
    weighted = [weights[name] * term for name, term in terms.items() if weights[name] > 0]
    return Losses(total=torch.stack(weighted).sum(), terms=terms, counts=counts)


def _speaking(output: Tacotron2Output, batch: Batch, config: Config) -> dict[str, Tensor]:
    """Terms of the decoder that speaks."""
    all_B = batch.all_mel_lengths
    reduction_factor = output.reduction_factor
    return {
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


def _coarse(output: Tacotron2Output, coarse: DecoderOutput, batch: Batch, config: Config) -> dict[str, Tensor]:
    """Terms of the coarse decoder: its own, by which it is trained like the other, and how far the two are from one another."""
    all_B = batch.all_mel_lengths
    factors = output.reduction_factor, coarse.reduction_factor
    if config.double_decoder.consistency == "attention":
        alignments = output.alignment_BSN, coarse.alignment_BSN
        consistency = attention_consistency_loss(
            *alignments, batch.symbol_lengths_B, batch.mel_lengths_B, reduction_factors=factors, all_lengths_B=all_B
        )
    else:
        # Detached: the coarse decoder has the recording to learn from, and a postnet's mel has detail that it cannot have.
        target_BTM = coarse.mel_BTM[:, : output.mel_post_BTM.shape[1]].detach()
        consistency = mel_loss(output.mel_post_BTM, target_BTM, batch.mel_lengths_B, config.losses.mel, all_lengths_B=all_B)
    return {
        "coarse_mel": mel_loss(coarse.mel_BTM, batch.mel_BTM, batch.mel_lengths_B, config.losses.mel, all_lengths_B=all_B),
        "coarse_gate": gate_loss(
            coarse.gate_logits_BT,
            batch.mel_lengths_B,
            reduction_factor=factors[1],
            positive_weight=config.losses.gate_positive_weight,
            all_lengths_B=all_B,
        ),
        "consistency": consistency,
    }


def _weights(config: Config, step: int) -> dict[str, float]:
    return {
        "mel_before": 1.0,
        "mel_after": 1.0,
        "gate": config.losses.gate_weight,
        "guided_attention": guided_attention_weight(config.guided_attention, step),
        "coarse_mel": config.double_decoder.coarse_weight,
        "coarse_gate": config.double_decoder.coarse_weight * config.losses.gate_weight,
        "consistency": config.double_decoder.weight,
        "mutual_information": config.mutual_information.weight,
    }
