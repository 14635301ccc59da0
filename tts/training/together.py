"""What the ranks of a training have in common at a step: gradients and losses added up, and the part of a rank that has no utterance.

Gradients are added in one piece after the backward pass, not by DistributedDataParallel, whose buckets overlap with it. Batch norm adds within
the backward pass, too, and all ranks must make all sums in one order; a rank without utterances has another order of gradients. Nothing is lost
by it: most of the backward pass is the attention loop, and most of the parameters have their gradients only after it. DDP would also divide by
the number of ranks, and wants a gradient for every parameter on every rank.
"""

import torch
from torch import Tensor, nn

from tts.data.batch import Batch
from tts.losses.total import Losses
from tts.model.batch_norm import MaskedBatchNorm1d
from tts.model.decoder import DecoderOutput
from tts.model.gradient_bound import GradientBound
from tts.model.output import Tacotron2Output
from tts.model.recogniser import Recognition
from tts.model.tacotron2 import Tacotron2
from tts.training.ranks import Ranks


def norms(model: nn.Module) -> list[MaskedBatchNorm1d]:
    """The layers whose statistics all ranks share, in the order of the forward pass."""
    return [module for module in model.modules() if isinstance(module, MaskedBatchNorm1d)]


def idle_output(model: Tacotron2, batch: Batch) -> Tacotron2Output:
    """What the network makes of a batch without rows: nothing, but it takes part in the others' sums, of both directions.

    The modules that add up over ranks are in the network in the order of its forward pass.
    """
    link = torch.zeros((), dtype=batch.mel_BTM.dtype, device=batch.mel_BTM.device, requires_grad=True)
    for module in model.modules():
        if isinstance(module, GradientBound):
            link, _ = module(link.to(model.decoder.mel.weight.dtype))
        elif isinstance(module, MaskedBatchNorm1d):
            x_BCL = (link + torch.zeros(0, module.num_features, 1, dtype=link.dtype, device=link.device)).to(module.weight.dtype)
            link = module(x_BCL, torch.zeros(0, 1, 1, dtype=torch.bool, device=link.device)).sum()
    mel_BTM = batch.mel_BTM + link
    empty = batch.mel_BTM.new_zeros
    spoken = DecoderOutput(mel_BTM, empty(0, mel_BTM.shape[1]), empty(0, 0, 0))
    coarse = spoken if model.coarse_decoder else None
    nobody = torch.zeros(0, 0, dtype=torch.int64, device=link.device)
    recognition = Recognition(empty(0, 0, 1), nobody, nobody.sum(1)) if model.recogniser else None
    style_BHK = empty(0, *model.style.mean_HK.shape) if model.style else None
    return Tacotron2Output(mel_BTM, mel_BTM, spoken.gate_logits_BT, spoken.alignment_BSN, coarse, recognition, style_BHK)


def add_up(model: nn.Module, losses: Losses, batch: Batch, ranks: Ranks) -> Losses:
    """Leaves the sum of all ranks' gradients in the parameters; the losses of the whole batch, without a graph.

    A parameter that no rank has a gradient for keeps none: Adam would otherwise let its weight decay.
    """
    own = Losses(losses.total.detach(), {name: term.detach() for name, term in losses.terms.items()}, losses.counts)
    if not ranks.together:
        return own
    figures = torch.stack([own.total, *own.terms.values(), *(count.to(own.total.dtype) for count in own.counts.values())])
    total, *added = _add(model, figures, idle=len(batch.all_ids) < ranks.count, ranks=ranks)
    terms, counts = added[: len(own.terms)], added[len(own.terms) :]
    return Losses(total, dict(zip(own.terms, terms, strict=True)), dict(zip(own.counts, counts, strict=True)))


def _add(model: nn.Module, figures: Tensor, *, idle: bool, ranks: Ranks) -> Tensor:
    parameters = list(model.parameters())
    present = [parameter.grad is not None for parameter in parameters]
    if idle:  # those who had utterances know which parameters have a gradient
        present = ranks.any(present)
    given = [parameter for parameter, needed in zip(parameters, present, strict=True) if needed]
    gradients = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in given]
    flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), figures.to(gradients[0].dtype)])
    *pieces, figures = torch.split(ranks.add(flat), [*(gradient.numel() for gradient in gradients), len(figures)])
    for parameter, piece in zip(given, pieces, strict=True):
        parameter.grad = piece.view_as(parameter)
    return figures
