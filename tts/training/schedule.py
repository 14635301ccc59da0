"""The learning rate, a pure function of the step: resume is right by construction.

Steps count from 1: step k is the k-th update.
"""

import math

from tts.config import OptimiserConfig


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
