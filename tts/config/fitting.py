"""Knobs of how the network is fitted: losses, guided attention, double decoder, mutual information, optimiser, training loop."""

from typing import Annotated, Literal

from pydantic import Field

from tts.config.knob import Choices, Search, Section


class LossConfig(Section):
    """Weights of the loss terms. The mel loss has weight 1: the others are measured against it."""

    mel: Annotated[Literal["mse", "l1"], Field(description="Distance between predicted and recorded mel cells.")] = "mse"
    gate_weight: Annotated[float, Field(ge=0, description="Weight of the stop gate's loss."), Search(0.1, 3.0, log=True)] = 1.0
    gate_positive_weight: Annotated[
        float, Field(gt=0, description="How much more a frame at or after the end counts than one before it."), Search(0.2, 20.0, log=True)
    ] = 1.0


class GuidedAttentionConfig(Section):
    """Guided attention (Tachibana et al. 2017, arXiv:1710.08969): a fading penalty on attention far from the diagonal."""

    weight: Annotated[float, Field(ge=0, description="Weight at the start; 0 turns the term off."), Search(0.1, 20.0, log=True)] = 1.0
    sigma: Annotated[float, Field(ge=1e-3, description="Width of the free band, as a share of the text."), Search(0.1, 0.5)] = 0.2
    hold_steps: Annotated[int, Field(ge=0, description="Steps at full weight.")] = 10_000
    decay_steps: Annotated[int, Field(ge=1, description="Steps in which the weight then falls linearly to final_share.")] = 10_000
    final_share: Annotated[float, Field(ge=0, le=1, description="Share of the weight that stays for good.")] = 0.0


class DoubleDecoderConfig(Section):
    """Double decoder consistency (Gölge 2020, erogol.com): a coarse decoder that finds the alignment early, and agreement with it.

    Has a say where model.coarse_reduction_factor is set.
    """

    consistency: Annotated[
        Literal["attention", "mel"],
        Field(description="What has to agree: both decoders' attention, frame by frame, or the mel after the postnet with the coarse decoder's mel."),
        Choices(("attention", "mel")),
    ] = "attention"
    weight: Annotated[float, Field(ge=0, description="Weight of the consistency."), Search(0.1, 5.0, log=True)] = 1.0
    coarse_weight: Annotated[
        float, Field(gt=0, description="Weight of the coarse decoder's own losses, beside those of the one that speaks."), Search(0.1, 2.0, log=True)
    ] = 1.0


class MutualInformationConfig(Section):
    """Mutual information (Liu et al. 2019, arXiv:1909.01145): a recogniser has to spell the text from the decoder's states.

    Has a say where model.recogniser is set.
    """

    weight: Annotated[
        float, Field(gt=0, description="Weight of the recogniser's loss; how far it reaches into the decoder is bounded."), Search(0.1, 2.0, log=True)
    ] = 1.0
    gradient_share: Annotated[
        float,
        Field(ge=0, le=1, description="Of the other losses' gradient at the decoder's states, how much its own may be; 0: it only listens."),
        Search(0.1, 1.0),
    ] = 0.5


class OptimiserConfig(Section):
    """Adam as in the paper, with a warm-up."""

    learning_rate: Annotated[float, Field(gt=0, le=1, description="Adam's step size after warm-up."), Search(1e-4, 4e-3, log=True)] = 1e-3
    warmup_steps: Annotated[int, Field(ge=0, description="Steps in which the learning rate rises linearly from 0."), Search(1, 1000, log=True)] = 500
    decay_start: Annotated[int, Field(ge=0, description="Step from which the learning rate falls exponentially.")] = 50_000
    decay_half_life: Annotated[int, Field(ge=1, description="Steps in which the falling learning rate halves.")] = 15_000
    minimum_learning_rate: Annotated[float, Field(ge=0, description="The learning rate does not decay below this.")] = 1e-5
    beta1: Annotated[float, Field(ge=0, lt=1, description="Decay of Adam's mean of gradients.")] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="Decay of Adam's mean of squared gradients.")] = 0.999
    epsilon: Annotated[float, Field(gt=0, description="Adam's epsilon.")] = 1e-6
    weight_decay: Annotated[float, Field(ge=0, description="L2 weight."), Search(1e-8, 1e-3, log=True)] = 1e-6
    clip_norm: Annotated[
        float, Field(gt=0, description="Gradients are scaled down to this norm over all parameters."), Search(0.1, 5.0, log=True)
    ] = 1.0


class TrainingConfig(Section):
    """The loop."""

    steps: Annotated[int, Field(ge=1, description="Updates in all.")] = 100_000
    seed: Annotated[int, Field(ge=0, lt=2**31, description="Seed of weights, dropout and data order.")] = 0
    reduction_interval: Annotated[
        int, Field(ge=1, description="Steps after which model.initial_reduction_factor falls by one, again and again, to model.reduction_factor.")
    ] = 10_000
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto takes CUDA where there is one.")] = "auto"
    threads: Annotated[int, Field(ge=0, description="CPU threads; 0 takes every core that this process may use.")] = 0
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"],
        Field(description="bf16 where the device has it natively; fp16 with a gradient scaler; losses and softmax stay in fp32."),
    ] = "fp32"
    cuda_graphs: Annotated[
        bool,
        Field(
            description="On CUDA, the decoder's attention loop is captured once for each shape of batch and replayed: fewer launches, same results."
        ),
    ] = True
    log_interval: Annotated[int, Field(ge=1, description="Steps between lines in metrics.jsonl.")] = 10
    validation_interval: Annotated[int, Field(ge=1, description="Steps between validations.")] = 1000
    checkpoint_interval: Annotated[int, Field(ge=1, description="Steps between checkpoints.")] = 1000
    keep_checkpoints: Annotated[int, Field(ge=1, description="Newest checkpoints that are kept, beside the best.")] = 3
