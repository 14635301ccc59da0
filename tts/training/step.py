"""One update of the weights."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from tts.config import Config
from tts.data.batch import Batch
from tts.losses.total import Losses, total_loss
from tts.model.output import Tacotron2Output
from tts.model.tacotron2 import Tacotron2
from tts.training.adam import Adam
from tts.training.anomaly import Anomaly, find_offender
from tts.training.evidence import Evidence, keep
from tts.training.modules_log import norm_of_each
from tts.training.precision import LOWEST_SCALE, Precision
from tts.training.randomness import reseed
from tts.training.ranks import ALONE, Ranks
from tts.training.schedule import learning_rate, reduction_factor
from tts.training.step_clock import StepClock
from tts.training.together import add_up, idle_output, norms


@dataclass(frozen=True)
class Learner:
    """The network and what changes it."""

    model: Tacotron2
    optimiser: Adam
    scaler: GradScaler
    precision: Precision
    ranks: Ranks = ALONE
    """Who has the other parts of each batch."""
    clock: StepClock = field(default_factory=StepClock)
    """Runs along with the steps that somebody starts on it."""


@dataclass(frozen=True)
class StepResult:
    """What one step came to. Tensors stay on the device until somebody reads them."""

    loss: Tensor
    terms: dict[str, Tensor]
    """Unweighted loss terms."""
    further: dict[str, Tensor]
    """Utterances left out of a term; how much of the recogniser's gradient reached the decoder."""
    gradient_norm: Tensor
    """Over all parameters, unscaled, before clipping."""
    gradient_norms: tuple[Tensor, ...]
    """The same of each parameter that has a gradient."""
    learning_rate: float
    reduction_factor: int
    overflow: bool
    """The gradient scaler was too bold: no update, but nothing is wrong."""
    anomaly: Anomaly | None
    """The first thing that was not finite: no update."""
    loss_value: float
    """The loss, as the check read it."""
    evidence: Evidence | None = None
    """With an anomaly that is to be replayed, on the rank that writes."""

    def figures(self) -> dict[str, float]:
        """Loss, terms and what belongs to them, gradient norm, learning rate and reduction factor as numbers; waits for the device."""
        terms = {name: float(term) for name, term in self.terms.items()}
        scheduled = {"learning_rate": self.learning_rate, "reduction_factor": self.reduction_factor}
        further = {name: float(figure) for name, figure in self.further.items()}
        return {"loss": float(self.loss), **terms, **further, "gradient_norm": float(self.gradient_norm), **scheduled}


def new_learner(config: Config, *, symbols: int, mels: int, precision: Precision, speakers: int = 1, ranks: Ranks = ALONE) -> Learner:
    """Fresh weights from the seed, and Adam as in Shen et al. 2018 (L2 weight added to the gradient)."""
    reseed(config.training.seed, 0)
    model = Tacotron2(config.model, symbols=symbols, mels=mels, speakers=speakers).to(precision.device)
    knobs = config.optimiser
    betas = (knobs.beta1, knobs.beta2)
    optimiser = Adam(model.parameters(), lr=knobs.learning_rate, betas=betas, eps=knobs.epsilon, weight_decay=knobs.weight_decay, fused=True)
    if model.recogniser:
        model.recogniser.bound.share = config.mutual_information.gradient_share
    if ranks.together:
        for norm in norms(model):
            norm.over_ranks = ranks.add_with_gradient
        if model.recogniser:
            model.recogniser.bound.over_ranks = ranks.add
    return Learner(model, optimiser, precision.scaler(), precision, ranks, StepClock(precision.device))


def train_step(learner: Learner, batch: Batch, config: Config, step: int, *, keep_evidence: bool = False) -> StepResult:
    """Forward, losses, backward, unscale, check, clip, update.

    A function of the learner's state, the batch, the configuration and the step's number alone. When the loss, a gradient or a BatchNorm statistic
    is not finite, weights, Adam's state and statistics stay as they were. But for CTC, which reads lengths on the CPU,
    the only wait for the device is the check.

    A device that runs out of memory (torch.OutOfMemoryError) has no step behind it either: what is left of the attempt are gradients.

    Ranks that train together each give their part of a batch. Whatever is looked at after the backward pass is a sum over all of them.
    With `keep_evidence`, the same on all ranks, an anomaly comes with all that is needed to make the step again.
    """
    statistics = [buffer.clone() for buffer in learner.model.buffers()]
    try:
        return _make(learner, batch, config, step, statistics, keep_evidence)
    except torch.OutOfMemoryError:
        _put_back(learner.model, statistics)
        raise


def _make(learner: Learner, batch: Batch, config: Config, step: int, statistics: list[Tensor], keep_evidence: bool) -> StepResult:
    """`statistics`: the network's buffers as they were before."""
    model, optimiser, scaler = learner.model, learner.optimiser, learner.scaler
    reseed(config.training.seed, step, learner.ranks.rank)
    rate = learning_rate(config.optimiser, step)
    for group in optimiser.param_groups:
        group["lr"] = rate
    factor = reduction_factor(config, step)
    model.reduce_by(factor)
    model.train()
    optimiser.zero_grad()
    output = _forward(learner, batch)
    own = total_loss(output, batch, config, step)
    learner.clock.end_of("forward")
    scaler.scale(own.total).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    losses = add_up(model, own, batch, learner.ranks)
    learner.clock.end_of("backward")
    scaler.unscale_(optimiser)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norms_P = norm_of_each(gradients)
    norm = torch.linalg.vector_norm(torch.stack(norms_P))
    statistics_norm = get_total_norm([buffer for buffer in model.buffers() if buffer.is_floating_point()])
    loss_value, *norms_read = torch.stack([losses.total, norm, statistics_norm]).tolist()
    healthy = all(map(math.isfinite, (loss_value, *norms_read)))
    scale = model.recogniser.bound.scale if model.recogniser else None
    anomaly, overflow, evidence = None, False, None
    if healthy:
        clip_grads_with_norm_(model.parameters(), config.optimiser.clip_norm, norm)
        _remember_style(learner, output, batch)
        scaler.step(optimiser)
    else:
        overflow = scaler.is_enabled() and scaler.get_scale() > LOWEST_SCALE and bool(losses.total.isfinite() & statistics_norm.isfinite())
        anomaly = None if overflow else _find_offender(learner, batch, own, losses.total, config, step)
        _put_back(model, statistics)
        if anomaly and keep_evidence:
            evidence = keep(model, scaler, batch, config, step, anomaly, precision=learner.precision, ranks=learner.ranks)
    scaler.update()
    further = losses.counts if scale is None else {**losses.counts, "mutual_information_scale": scale}
    learner.clock.end_of("update")
    return StepResult(losses.total, losses.terms, further, norm, norms_P, rate, factor, overflow, anomaly, loss_value, evidence)


def _put_back(model: Tacotron2, buffers: list[Tensor]) -> None:
    for buffer, before in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(before)


def _forward(learner: Learner, batch: Batch) -> Tacotron2Output:
    if not batch.ids:
        return idle_output(learner.model, batch)
    with learner.precision.autocast():
        output: Tacotron2Output = learner.model(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B, batch.speakers_B)
    return output


def _remember_style(learner: Learner, output: Tacotron2Output, batch: Batch) -> None:
    """Only with an update, and by the whole batch: all ranks have the same mean."""
    if learner.model.style and output.style_BHK is not None:
        sum_HK = learner.ranks.add(output.style_BHK.detach().sum(0).to(learner.model.style.mean_HK.dtype))
        learner.model.style.remember(sum_HK / len(batch.all_ids))


def _find_offender(learner: Learner, batch: Batch, own: Losses, total: Tensor, config: Config, step: int) -> Anomaly:
    """Looks at the same forward pass again: same dropout, same number format."""
    reseed(config.training.seed, step, learner.ranks.rank)

    def losses(output: Tacotron2Output, part: Batch) -> Losses:
        return total_loss(output, part, config, step)

    return find_offender(learner.model, batch, own, total=total, forward=lambda: _forward(learner, batch), losses=losses, ranks=learner.ranks)
