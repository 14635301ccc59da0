"""Every knob once: type, unit, bounds, default and search range.

From here come the command line's flags and help, the JSON schema, the study's distributions, the tracked parameters,
`config.json` and the YAML files. The sections live in voice.py (text, audio, quality, data), network.py (model),
fitting.py (losses, guided_attention, double_decoder, mutual_information, optimiser, training), recovery.py (recovery), search.py (tuning),
cluster.py (cluster) and verdict.py (synthesis, evaluation, tracking).
"""

from pydantic import Field

from tts.config.cluster import ClusterConfig, Toleration
from tts.config.fitting import DoubleDecoderConfig, GuidedAttentionConfig, LossConfig, MutualInformationConfig, OptimiserConfig, TrainingConfig
from tts.config.knob import Choices, Knob, Search, Section, knobs
from tts.config.network import ModelConfig
from tts.config.recovery import RecoveryConfig, Remedy
from tts.config.search import Condition, ObjectiveTerm, Range, TuningConfig
from tts.config.verdict import EvaluationConfig, SynthesisConfig, TrackingConfig
from tts.config.voice import AudioConfig, DataConfig, QualityConfig, TextConfig

OBJECTIVES = ("losses", "guided_attention", "double_decoder", "mutual_information")
"""Sections that say what is minimised."""

__all__ = [
    "OBJECTIVES",
    "AudioConfig",
    "Choices",
    "ClusterConfig",
    "Condition",
    "Config",
    "DataConfig",
    "DoubleDecoderConfig",
    "EvaluationConfig",
    "GuidedAttentionConfig",
    "Knob",
    "LossConfig",
    "ModelConfig",
    "MutualInformationConfig",
    "ObjectiveTerm",
    "OptimiserConfig",
    "QualityConfig",
    "Range",
    "RecoveryConfig",
    "Remedy",
    "Search",
    "Section",
    "SynthesisConfig",
    "TextConfig",
    "Toleration",
    "TrackingConfig",
    "TrainingConfig",
    "TuningConfig",
    "knobs",
]


class Config(Section):
    """The whole configuration. A run never changes it; it travels with every result."""

    text: TextConfig = Field(default_factory=TextConfig, description="Transcripts into symbols.")
    audio: AudioConfig = Field(default_factory=AudioConfig, description="Recordings into mel frames.")
    quality: QualityConfig = Field(default_factory=QualityConfig, description="Clips that are not trained on.")
    data: DataConfig = Field(default_factory=DataConfig, description="Split and batches.")
    model: ModelConfig = Field(default_factory=ModelConfig, description="The network.")
    losses: LossConfig = Field(default_factory=LossConfig, description="Weights of the loss terms.")
    guided_attention: GuidedAttentionConfig = Field(default_factory=GuidedAttentionConfig, description="Push towards a diagonal attention.")
    double_decoder: DoubleDecoderConfig = Field(default_factory=DoubleDecoderConfig, description="Agreement with a second, coarse decoder.")
    mutual_information: MutualInformationConfig = Field(
        default_factory=MutualInformationConfig, description="Speech from which a recogniser can spell the text."
    )
    optimiser: OptimiserConfig = Field(default_factory=OptimiserConfig, description="Adam, its schedule and clipping.")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="The training loop.")
    recovery: RecoveryConfig = Field(default_factory=RecoveryConfig, description="What a training does when it goes wrong.")
    tuning: TuningConfig = Field(default_factory=TuningConfig, description="The study.")
    cluster: ClusterConfig = Field(default_factory=ClusterConfig, description="Trial pods on Kubernetes.")
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig, description="Speaking.")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Judging.")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="Recording of runs.")
