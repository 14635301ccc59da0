"""Knobs of the study: what is searched, with what budget, judged by what."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tts.config.knob import Section


class ObjectiveTerm(Section):
    """One metric of the objective. All terms are needed: a missing or non-finite one fails the trial."""

    metric: Annotated[str, Field(min_length=1, description="Name of a validation metric.")]
    weight: Annotated[float, Field(gt=0, description="Factor in the weighted sum.")] = 1.0
    direction: Annotated[Literal["minimise", "maximise"], Field(description="maximise: enters the sum with a minus.")] = "minimise"


class TuningConfig(Section):
    """The study."""

    # Not data.frame_budget: a trial has a budget of steps, so larger batches would win by computing more.
    knobs: Annotated[tuple[str, ...], Field(min_length=1, description="Knobs that are searched, by their full names.")] = (
        "optimiser.learning_rate",
        "optimiser.warmup_steps",
        "optimiser.clip_norm",
        "losses.gate_weight",
        "guided_attention.weight",
        "guided_attention.sigma",
        "model.prenet_dropout",
        "model.encoder_dropout",
    )
    objective: Annotated[tuple[ObjectiveTerm, ...], Field(min_length=1, description="Terms of the weighted sum that is minimised.")] = (
        ObjectiveTerm(metric="mel_loss"),
        ObjectiveTerm(metric="gate_loss"),
        ObjectiveTerm(metric="attention_diagonality", direction="maximise"),
    )
    trials: Annotated[int, Field(ge=1, description="Finished trials (completed, pruned or failed) that the study aims at.")] = 30
    steps: Annotated[int, Field(ge=1, description="Updates of a trial that is not pruned.")] = 5000
    validation_interval: Annotated[int, Field(ge=1, description="Steps between the reports of a trial.")] = 500
    workers: Annotated[int, Field(ge=1, le=1024, description="Workers that share the study.")] = 2
    sampler: Annotated[Literal["tpe", "random"], Field(description="How the next values are chosen.")] = "tpe"
    pruner: Annotated[Literal["hyperband", "median", "none"], Field(description="How a trial without prospects is ended early.")] = "hyperband"
    pruner_min_reports: Annotated[int, Field(ge=1, description="Reports before a trial may be pruned.")] = 2
    pruner_reduction_factor: Annotated[int, Field(ge=2, description="Hyperband keeps one trial in this many at each rung.")] = 3
    seed: Annotated[int, Field(ge=0, lt=2**31, description="Seed of the sampler; each trial adds its own number.")] = 0
    max_retries: Annotated[int, Field(ge=0, description="Times that a trial is taken up again after its worker died; then it fails.")] = 3

    @model_validator(mode="after")
    def _consistent(self) -> "TuningConfig":
        if self.validation_interval > self.steps:
            raise ValueError(f"validation_interval must be at most steps ({self.steps}), got {self.validation_interval}")
        for field, names in (("knobs", self.knobs), ("objective", [term.metric for term in self.objective])):
            repeated = sorted({name for name in names if list(names).count(name) > 1})
            if repeated:
                raise ValueError(f"{field} names {', '.join(repeated)} more than once")
        return self
