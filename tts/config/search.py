"""Knobs of the study: what is searched, with what budget, judged by what."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tts.config.knob import Section


class ObjectiveTerm(Section):
    """One metric of an objective. All terms are needed: a missing or non-finite one fails the trial."""

    metric: Annotated[str, Field(min_length=1, description="Name of a validation metric.")]
    weight: Annotated[float, Field(gt=0, description="Factor in the weighted sum.")] = 1.0
    direction: Annotated[Literal["minimise", "maximise"], Field(description="maximise: enters the sum with a minus.")] = "minimise"
    scale: Annotated[float, Field(gt=0, description="Typical size of the metric: it is divided by it before it is weighted.")] = 1.0
    objective: Annotated[str, Field(min_length=1, description="Terms of one name are summed; several names search for a Pareto set.")] = "loss"


class Range(Section):
    """Another search range than the knob's own: low and high, or the values to choose among."""

    knob: Annotated[str, Field(min_length=1, description="Full name of the knob.")]
    low: Annotated[float | None, Field(description="Lowest value.")] = None
    high: Annotated[float | None, Field(description="Highest value.")] = None
    log: Annotated[bool, Field(description="Spread draws evenly over orders of magnitude.")] = False
    step: Annotated[float | None, Field(gt=0, description="Distance between values; not with log.")] = None
    values: Annotated[tuple[bool | int | float | str, ...], Field(description="Values to choose among, instead of low and high.")] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Range":
        numbers = self.low is not None and self.high is not None
        if numbers == bool(self.values) or (not numbers and (self.low, self.high) != (None, None)):
            raise ValueError(f"a range has low and high, or values; got low {self.low}, high {self.high}, values {list(self.values)}")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low must be at most high ({self.high}), got {self.low}")
        if self.low is not None and self.low <= 0 and self.log:
            raise ValueError(f"low must be > 0 with log, got {self.low}")
        if self.step is not None and self.log:
            raise ValueError("step and log exclude each other")
        return self


class Condition(Section):
    """Searches a knob only in trials where another one has a certain value; elsewhere it keeps the configuration's value."""

    knob: Annotated[str, Field(min_length=1, description="Full name of the knob that is searched only sometimes.")]
    when: Annotated[str, Field(min_length=1, description="Full name of the searched knob that decides.")]
    above: Annotated[float | None, Field(description="... if that one is greater than this.")] = None
    below: Annotated[float | None, Field(description="... if that one is less than this.")] = None
    among: Annotated[tuple[bool | int | float | str, ...], Field(description="... if that one is among these.")] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Condition":
        if self.above is None and self.below is None and not self.among:
            raise ValueError("a condition needs above, below or among")
        return self


Sampler = Literal["tpe", "cmaes", "gp", "qmc", "random", "nsgaii"]
Pruner = Literal["hyperband", "successive_halving", "median", "percentile", "wilcoxon", "threshold", "none"]


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
    ranges: Annotated[tuple[Range, ...], Field(description="Search ranges that differ from the knobs' own.")] = ()
    conditions: Annotated[tuple[Condition, ...], Field(description="Knobs that are searched only beside certain values of another.")] = ()
    objective: Annotated[tuple[ObjectiveTerm, ...], Field(min_length=1, description="Terms of the weighted sum that is minimised.")] = (
        ObjectiveTerm(metric="mel_loss"),
        ObjectiveTerm(metric="gate_loss"),
        ObjectiveTerm(metric="attention_diagonality", direction="maximise"),
    )
    trials: Annotated[int, Field(ge=1, description="Finished trials (completed, pruned or failed) that the study aims at.")] = 30
    gpu_hours: Annotated[
        float, Field(ge=0, description="Hours of training, over all trials, times the devices of each, after which none begins; 0: no limit.")
    ] = 0.0
    hours: Annotated[float, Field(ge=0, description="Hours by the clock that the study's workers may run in all; 0: no limit.")] = 0.0
    plateau_trials: Annotated[int, Field(ge=0, description="Ends the study after this many finished trials without a better one; 0: never.")] = 0
    plateau_share: Annotated[float, Field(ge=0, lt=1, description="Share of the best value by which a better trial must be better.")] = 0.001
    steps: Annotated[int, Field(ge=1, description="Updates of a trial that is not pruned.")] = 5000
    validation_interval: Annotated[int, Field(ge=1, description="Steps between the reports of a trial.")] = 500
    trial_restarts: Annotated[
        int,
        Field(
            ge=0,
            description="Remedies of recovery.remedies that a trial may use; 0: one that goes wrong has failed, for a remedy trains with other "
            "values than those that the study tries.",
        ),
    ] = 0
    free_running_utterances: Annotated[int, Field(ge=1, description="Held-out clips spoken for the objective's free-running metrics.")] = 4
    workers: Annotated[int, Field(ge=1, le=1024, description="Workers that share the study.")] = 2
    launcher: Annotated[
        Literal["local", "kubernetes"], Field(description="Where workers run: processes on this machine, or pods of a Job (section cluster).")
    ] = "local"
    trials_per_pod: Annotated[
        int, Field(ge=0, description="kubernetes: trials after which a pod gives way to a new one; 0: as many as there are.")
    ] = 0
    gpus_per_trial: Annotated[
        int, Field(ge=0, le=16, description="Devices a trial trains on, one process each; a pod asks for so many GPUs. 0: one, or none in a pod.")
    ] = 0
    runs_uri: Annotated[
        str, Field(description="Where trials keep their checkpoints, such as s3://bucket/prefix; empty: the study's folder, which all workers share.")
    ] = ""
    # What a study of few trials spends least with: see "How much the search saves" in docs/tuning.md. Hyperband (Li et al. 2018) lets a share of
    # the trials pass the first reports unjudged; ours tell enough from the second on. Half go on at each rung, as those that a model draws are
    # close to one another: with a third the search took longer.
    sampler: Annotated[Sampler, Field(description="How the next values are chosen.")] = "gp"
    startup_trials: Annotated[
        int, Field(ge=1, description="Finished trials before a model of them is used (tpe, cmaes, gp); trials of a generation (nsgaii).")
    ] = 4
    pruner: Annotated[Pruner, Field(description="How a trial without prospects is ended early.")] = "successive_halving"
    pruner_min_reports: Annotated[int, Field(ge=1, description="Reports before a trial may be pruned.")] = 2
    pruner_reduction_factor: Annotated[int, Field(ge=2, description="hyperband, successive_halving: one trial in this many goes on.")] = 2
    pruner_percentile: Annotated[float, Field(gt=0, lt=100, description="percentile: the best of so many per cent go on.")] = 25.0
    pruner_p_value: Annotated[float, Field(gt=0, lt=1, description="wilcoxon: significance below which a trial is pruned.")] = 0.1
    pruner_threshold: Annotated[float, Field(description="threshold: a trial that reports more is pruned.")] = 100.0
    pruner_patience: Annotated[int, Field(ge=0, description="Reports without improvement before any pruner may act; 0: at once.")] = 0
    seed: Annotated[int, Field(ge=0, lt=2**31, description="Seed of the sampler; each trial adds its own number.")] = 0
    max_retries: Annotated[
        int,
        Field(ge=0, description="Times that a trial goes on after its worker died, and that tts tune restarts a killed worker."),
    ] = 3
    heartbeat_seconds: Annotated[float, Field(gt=0, description="Between two signs of life of a worker.")] = 10.0
    stale_seconds: Annotated[float, Field(gt=0, description="Without a sign of life, before a worker's trial is given to another.")] = 60.0
    launcher_stale_seconds: Annotated[
        float, Field(gt=0, description="kubernetes: without a sign of life of tts tune, before workers hand their trials back and stop.")
    ] = 180.0

    @model_validator(mode="after")
    def _consistent(self) -> "TuningConfig":
        if self.validation_interval > self.steps:
            raise ValueError(f"validation_interval must be at most steps ({self.steps}), got {self.validation_interval}")
        if self.stale_seconds < 3 * self.heartbeat_seconds:
            raise ValueError(f"stale_seconds must be at least three times heartbeat_seconds ({self.heartbeat_seconds:g}), got {self.stale_seconds:g}")
        terms = [f"{term.objective}.{term.metric}" for term in self.objective]
        ranges, conditions = [entry.knob for entry in self.ranges], [entry.knob for entry in self.conditions]
        for field, names in (("knobs", list(self.knobs)), ("objective", terms), ("ranges", ranges), ("conditions", conditions)):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"{field} names {', '.join(repeated)} more than once")
        return self
