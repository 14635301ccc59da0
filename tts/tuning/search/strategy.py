"""Sampler, pruner and directions of a study by their names in the configuration."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from optuna.distributions import CategoricalDistribution
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
from optuna.samplers import BaseSampler, RandomSampler

from tts.config import TuningConfig
from tts.config.search import Pruner
from tts.errors import UsageError
from tts.tuning.search.objective import Objective
from tts.tuning.search.samplers import CmaEs, GaussianProcess, NsgaII, Sobol, WholeStudy, tpe
from tts.tuning.search.space import Space

SEVERAL_OBJECTIVES = ("tpe", "gp", "qmc", "random", "nsgaii")
"""Samplers that search for a Pareto set."""


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
        return WholeStudy(_sampler(config, trial, seed, space))


def _sampler(config: TuningConfig, trial: int, seed: int, space: Space) -> BaseSampler:
    conditional = {condition.knob for condition in config.conditions}
    match config.sampler:
        case "tpe":
            return tpe(config, seed)
        case "cmaes":
            steady = {name: spread for name, spread in space.items() if name not in conditional and not isinstance(spread, CategoricalDistribution)}
            return CmaEs(config, seed, steady)
        case "gp":
            return GaussianProcess(config, seed, {name: spread for name, spread in space.items() if name not in conditional})
        case "qmc":
            return Sobol(config.seed, trial, space)
        case "nsgaii":
            return NsgaII(population_size=max(2, config.startup_trials), seed=seed)
        case "random":
            return RandomSampler(seed=seed)


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
