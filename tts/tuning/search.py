"""Sampler and pruner by their names in the configuration."""

import numpy as np
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from tts.config import TuningConfig
from tts.errors import UsageError


def sampler(config: TuningConfig, trial: int) -> BaseSampler:
    """The sampler that draws trial number `trial`.

    Each trial has a seed of its own: workers that share a study never draw the same values, and a study that is taken up again or
    extended does not draw its first values a second time.
    """
    seed = int(np.random.SeedSequence([config.seed, trial]).generate_state(1)[0])
    return TPESampler(seed=seed) if config.sampler == "tpe" else RandomSampler(seed=seed)


def pruner(config: TuningConfig) -> BasePruner:
    """The pruner; its resource is the training step. Raises UsageError where a trial would end before its first judgement."""
    first = config.pruner_min_reports * config.validation_interval
    if config.pruner == "none":
        return NopPruner()
    if first > config.steps:
        raise UsageError(
            f"tuning.pruner {config.pruner} judges a trial first at step {first} (pruner_min_reports x validation_interval), but a trial has only "
            f"{config.steps} steps; lower tuning.pruner_min_reports or tuning.validation_interval, or set tuning.pruner none"
        )
    if config.pruner == "median":
        return MedianPruner(n_warmup_steps=first)
    return HyperbandPruner(min_resource=first, max_resource=config.steps, reduction_factor=config.pruner_reduction_factor)
