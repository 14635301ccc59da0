"""Presets are functions: typed, greppable, each with its source."""

from collections.abc import Callable

from tts.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    GuidedAttentionConfig,
    LossConfig,
    ModelConfig,
    OptimiserConfig,
    TrainingConfig,
    TuningConfig,
)


def tacotron2() -> Config:
    """The paper's network and optimiser (Shen et al. 2018, arXiv:1712.05884), audio as in NVIDIA/tacotron2, plus guided attention.

    Differs from the paper: decoder dropout 0.1 (NVIDIA/tacotron2) in place of zoneout 0.1, batches by a frame budget, warm-up.
    """
    return Config()


def small() -> Config:
    """The paper's layout at half its widths and two frames a step (the reduction of ESPnet's and Coqui's default recipes).

    For one consumer GPU or a patient CPU: a quarter of the weights and half the decoder steps of `tacotron2`.
    """
    return Config(
        model=ModelConfig(
            symbol_embedding=256, encoder_lstm=256, attention_lstm=512, prenet=128, decoder_lstm=512, postnet_channels=256, reduction_factor=2
        ),
        data=DataConfig(frame_budget=6000),
        training=TrainingConfig(steps=50_000),
    )


def full() -> Config:
    """`tacotron2` with all that makes attention learn early and hold.

    A second decoder of six frames a step (Gölge 2020; Coqui's default), guided attention, and mutual information between text and speech with
    dropped frames (Liu et al. 2019, arXiv:1909.01145, whose share is 0.2).
    For corpora on which `tacotron2` skips or repeats words. A step takes longer; the voice speaks as fast.
    """
    return Config(model=ModelConfig(coarse_reduction_factor=6, recogniser=1024, frame_drop=0.2))


_DEMO_KNOBS = (
    "optimiser.learning_rate",
    "optimiser.clip_norm",
    "losses.gate_weight",
    "guided_attention.weight",
    "guided_attention.sigma",
    "model.prenet_dropout",
)
"""Those that show an effect within the demo's short trials."""


def demo() -> Config:
    """Learns to speak on two CPU cores in minutes: the layout of Shen et al. 2018 at a quarter of its widths, five frames a step.

    The attention keeps half of its width, the postnet a fifth.

    A large reduction factor makes attention align early (Wang et al. 2017, arXiv:1703.10135, section 3.3); dropout is low because the
    demo corpus is synthetic and small. Settings were chosen by measurement on the demo corpus.
    """
    return Config(
        model=ModelConfig(
            symbol_embedding=128,
            encoder_lstm=128,
            encoder_dropout=0.1,
            attention=64,
            location_filters=16,
            attention_lstm=256,
            prenet=64,
            decoder_lstm=256,
            postnet_channels=96,
            postnet_dropout=0.1,
            reduction_factor=5,
        ),
        data=DataConfig(frame_budget=2000, max_batch_size=32, held_out_max=12),
        losses=LossConfig(gate_positive_weight=5.0),
        guided_attention=GuidedAttentionConfig(weight=5.0, hold_steps=300, decay_steps=300, final_share=0.1),
        optimiser=OptimiserConfig(learning_rate=2e-3, warmup_steps=20, decay_start=800, decay_half_life=250, minimum_learning_rate=1e-4),
        # A second thread shortens so small a step by a sixth, and makes it several times longer beside anything else that is busy.
        training=TrainingConfig(steps=1500, validation_interval=100, checkpoint_interval=100, threads=1),
        # Six trials teach no model: with tpe, workers need no torch of their own, hundreds of megabytes each.
        tuning=TuningConfig(knobs=_DEMO_KNOBS, trials=6, steps=90, validation_interval=15, workers=2, sampler="tpe"),
        evaluation=EvaluationConfig(sentences=12),
    )


PRESETS: dict[str, Callable[[], Config]] = {"tacotron2": tacotron2, "full": full, "small": small, "demo": demo}
