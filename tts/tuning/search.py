"""Sampler, pruner and directions of a study by their names in the configuration."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
    WilcoxonPruner,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from tts.config import TuningConfig
from tts.config.search import Pruner
from tts.errors import UsageError
from tts.tuning.objective import Objective
from tts.tuning.space import Space

SEVERAL_OBJECTIVES = ("tpe", "gp", "qmc", "random", "nsgaii")
"""Samplers that search for a Pareto set."""
REDRAWS = 20
"""nsgaii copies its parents now and then; it is asked again so many times before a trial may repeat another."""


def directions(config: TuningConfig) -> list[str]:
    """One direction for each objective: all are minimised, as maximised metrics enter with a minus."""
    return ["minimize"] * len(Objective(config.objective).names)


def sampler(config: TuningConfig, trial: int, space: Space) -> BaseSampler:
    """The sampler that draws trial number `trial`.

    Each trial has a seed of its own: workers that share a study never draw the same values, and a study that is taken up again or
    extended does not draw its first values a second time. What a sampler has to remember (CMA-ES its distribution, NSGA-II its generations)
    it keeps in the study. Sobol's sequence has the study's seed and is entered at the trial's number.

    Raises:
        UsageError: The study has several objectives, and this sampler knows but one.
    """
    several = Objective(config.objective).several
    if several and config.sampler not in SEVERAL_OBJECTIVES:
        raise UsageError(
            f"tuning.sampler {config.sampler} searches for one objective, tuning.objective names {', '.join(Objective(config.objective).names)}; "
            f"choose one of {', '.join(SEVERAL_OBJECTIVES)}"
        )
    seed = int(np.random.SeedSequence([config.seed, trial]).generate_state(1)[0])
    with _experiments():
        return _WholeStudy(_sampler(config, trial, seed, space))


def _sampler(config: TuningConfig, trial: int, seed: int, space: Space) -> BaseSampler:
    conditional = {condition.knob for condition in config.conditions}
    match config.sampler:
        case "tpe":
            return _tpe(config, seed)
        case "cmaes":
            steady = {name: spread for name, spread in space.items() if name not in conditional and not isinstance(spread, CategoricalDistribution)}
            return _CmaEs(config, seed, steady)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=config.startup_trials, warn_independent_sampling=False)
        case "qmc":
            return _Sobol(config.seed, trial, space)
        case "nsgaii":
            return _NsgaII(population_size=max(2, config.startup_trials), seed=seed)
        case "random":
            return RandomSampler(seed=seed)


def _tpe(config: TuningConfig, seed: int) -> TPESampler:
    # For several objectives Optuna models each knob by itself, which copes with conditions as it is.
    one = not Objective(config.objective).several
    group = one and bool(config.conditions)
    return TPESampler(seed=seed, n_startup_trials=config.startup_trials, multivariate=one, group=group, constant_liar=True)


class _WholeStudy(BaseSampler):
    """Lets a sampler see all trials of the study.

    Optuna shows it those of the trial's own Hyperband bracket alone, and that only once the pruner has judged a trial in this process: a study of
    30 trials would hardly leave the random start in any bracket, and would go on differently when it is taken up again.
    """

    def __init__(self, inner: BaseSampler) -> None:
        self.inner = inner

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Space:
        return self.inner.infer_relative_search_space(_whole(study), trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        return self.inner.sample_relative(_whole(study), trial, search_space)

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self.inner.sample_independent(_whole(study), trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.inner.before_trial(_whole(study), trial)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.inner.after_trial(_whole(study), trial, state, values)

    def reseed_rng(self) -> None:
        self.inner.reseed_rng()


def _whole(study: optuna.Study) -> optuna.Study:
    whole: optuna.Study = getattr(study, "_study", study) if hasattr(type(study), "_VALID_ATTRS") else study
    return whole


class _Sobol(QMCSampler):
    """Sobol's sequence, scrambled once for the study, entered at the trial's number.

    Optuna counts draws instead, so that a trial that is taken up again would skip a point.
    All knobs have their dimension from the first trial on, the conditional ones too, which a trial then uses or not.
    """

    def __init__(self, seed: int, trial: int, space: Space) -> None:
        super().__init__(qmc_type="sobol", scramble=True, seed=seed, warn_asynchronous_seeding=False, warn_independent_sampling=False)
        self._trial = trial
        self._space = _wide(space)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Space:
        return self._space

    def _find_sample_id(self, study: optuna.Study, search_space: Space) -> int:
        return self._trial


class _CmaEs(CmaEsSampler):
    """CMA-ES over the numbers that every trial has; TPE draws the others: choices among values, and knobs under a condition.

    The space is fixed beforehand. Optuna takes what all finished trials have in common, and draws at random for good as soon as that shrinks.
    """

    def __init__(self, config: TuningConfig, seed: int, steady: Space) -> None:
        super().__init__(
            seed=seed,
            n_startup_trials=config.startup_trials,
            independent_sampler=_tpe(config, seed),
            warn_independent_sampling=False,
            consider_pruned_trials=True,  # a pruned trial counts with its last report: worse than those that went on
            with_margin=any(getattr(spread, "step", None) for spread in steady.values()),  # keeps whole numbers from freezing
        )
        self._steady = _wide(steady)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Space:
        return self._steady


class _NsgaII(NSGAIISampler):
    """NSGA-II that does not repeat a trial: the same values train the same network once more."""

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        known = [other.params for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        for _ in range(REDRAWS):
            child = super().sample_relative(study, trial, search_space)
            # A knob that mutates is left out and drawn at random afterwards.
            if child.keys() != search_space.keys() or not any(child.items() <= params.items() for params in known):
                break
        return child


def _wide(space: Space) -> Space:
    """Without the knobs that have a single value: Optuna takes that itself."""
    return {name: spread for name, spread in sorted(space.items()) if not spread.single()}


def pruner(config: TuningConfig) -> BasePruner:
    """The pruner; its resource is the training step.

    Raises:
        UsageError: A trial would end before its first judgement, patience has nothing to hold back, or there are several objectives.
    """
    if config.pruner == "none":
        if config.pruner_patience:
            raise UsageError(
                "tuning.pruner_patience holds a pruner back, and tuning.pruner is none; choose a pruner, or set tuning.pruner_patience 0"
            )
        return NopPruner()
    objective = Objective(config.objective)
    if objective.several:
        raise UsageError(
            f"tuning.pruner {config.pruner} compares trials by one number, tuning.objective names {', '.join(objective.names)}; "
            "set tuning.pruner none, or give all terms one objective name"
        )
    reports = _first_report(config)
    if reports * config.validation_interval > config.steps:
        raise UsageError(
            f"tuning.pruner {config.pruner} judges a trial first at step {reports * config.validation_interval} ({reports} reports x "
            f"validation_interval), but a trial has only {config.steps} steps; lower tuning.pruner_min_reports, pruner_patience or "
            "validation_interval, or set tuning.pruner none"
        )
    with _experiments():
        chosen = _pruner(config)
        return PatientPruner(chosen, config.pruner_patience) if config.pruner_patience else chosen


@contextmanager
def _experiments() -> Iterator[None]:
    """Without Optuna's warnings about what it calls experimental: its version is bounded, and a user can do nothing about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _first_report(config: TuningConfig) -> int:
    """The report at which a trial may be pruned for the first time."""
    first = config.pruner_min_reports
    if config.pruner == "wilcoxon":  # n reports, each worse than the best trial's, have p = 2^-n
        first = max(first, 2, math.floor(-math.log2(config.pruner_p_value)) + 1)
    return max(first, config.pruner_patience + 2) if config.pruner_patience else first


def _pruner(config: TuningConfig) -> BasePruner:
    first, factor = config.pruner_min_reports * config.validation_interval, config.pruner_reduction_factor
    makers: dict[Pruner, Callable[[], BasePruner]] = {
        "hyperband": lambda: HyperbandPruner(min_resource=first, max_resource=config.steps, reduction_factor=factor),
        "successive_halving": lambda: SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor),
        "median": lambda: MedianPruner(n_warmup_steps=first),
        "percentile": lambda: PercentilePruner(config.pruner_percentile, n_warmup_steps=first),
        "wilcoxon": lambda: WilcoxonPruner(p_threshold=config.pruner_p_value, n_startup_steps=config.pruner_min_reports),
        "threshold": lambda: ThresholdPruner(upper=config.pruner_threshold, n_warmup_steps=first),
        "none": NopPruner,
    }
    return makers[config.pruner]()
