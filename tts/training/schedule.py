"""Learning rate and reduction factor, pure functions of the step: resume is right by construction.

Steps count from 1: step k is the k-th update.
"""

import math

from tts.config import Config, OptimiserConfig


def learning_rate(config: OptimiserConfig, step: int) -> float:
    """Linear warm-up, then constant, then exponential decay to a minimum, as in Shen et al. 2018 (arXiv:1712.05884, section 2.2).

    Update `warmup_steps` is the first at the full rate. The decay starts after update `decay_start`, and never before the warm-up has ended;
    a rate that was below the minimum from the start does not decay.
    """
    peak = config.learning_rate
    if step < config.warmup_steps:
        return peak * step / config.warmup_steps
    decaying = max(0, step - max(config.decay_start, config.warmup_steps))
    return max(peak * math.exp2(-decaying / config.decay_half_life), min(peak, config.minimum_learning_rate))


def reduction_factor(config: Config, step: int) -> int:
    """Frames that a decoder step writes: from `model.initial_reduction_factor` down to `model.reduction_factor`, one less after each interval.

    Large factors align early, small ones sound better; Coqui's gradual training sets each stage by hand, with a batch size of its own.
    """
    fallen = max(step - 1, 0) // config.training.reduction_interval
    return max(config.model.largest_reduction_factor - fallen, config.model.reduction_factor)
