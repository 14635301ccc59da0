"""What a training's guards and its measuring of itself cost: steps as training makes them against the same steps without.

With: the step of tts/training/step.py (check of loss, gradients and statistics for what is not finite, statistics kept for a skipped update), the
clock of its parts, and at each tenth step, the default training.log_interval, the lines of metrics.jsonl and modules.jsonl. Without: seed, learning
rate, forward, losses, backward, clipping, Adam, on the same weights and batch. Preset `small`, 16 utterances of 80 symbols.

A plain step, a guarded one and a guarded one with its lines take turns, in another order each time. What guards cost depends on the weights, not on
the frames: the difference is taken on utterances of 20 frames at most, where it does not drown in the noise of a long step, and given as a share
of a plain step on 402 frames at most. On one core, in seconds of the processor and medians over rounds, so that what else runs on the machine hardly
counts; rounds go on until the share is known to SURE, by its deviation over them, or for MOST_ROUNDS.

    python -m tests.benchmarks.guards
"""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch.nn.utils import clip_grad_norm_

from tests.benchmarks.decoder import FRAMES, MELS, TABLE, random_batch
from tts.config import Config
from tts.config.presets import small
from tts.data.batch import Batch
from tts.losses.total import total_loss
from tts.training.metrics_log import MetricsLog
from tts.training.modules_log import ModulesLog, by_part
from tts.training.precision import choose_precision
from tts.training.randomness import reseed
from tts.training.schedule import learning_rate, reduction_factor
from tts.training.step import Learner, StepResult, new_learner, train_step

FULL_STEPS = 3
FEWEST_ROUNDS, MOST_ROUNDS = 12, 60
SURE = 0.001
"""Standard error of the share at which no further round is needed."""

Step = Callable[[Batch, int], None]


def measure(config: Config | None = None) -> dict[str, float]:
    """`guards_share_of_step`, its standard error, and median seconds; preset `small` unless told otherwise. Sets torch to one thread."""
    torch.set_num_threads(1)
    config = config or small()
    learner = new_learner(config, symbols=TABLE, mels=MELS, precision=choose_precision("fp32", torch.device("cpu")))
    short, full = random_batch(FRAMES // 20), random_batch(FRAMES)
    with tempfile.TemporaryDirectory() as folder:
        steps = variants(learner, config, Path(folder))
        for step in steps.values():
            step(short, 1)
        whole = median(_seconds(steps["plain"], full, number) for number in range(2, 2 + FULL_STEPS))
        costs = _costs(steps, short, config.training.log_interval, sure=SURE * whole)
    return {
        "guards_share_of_step": median(costs) / whole,
        "guards_share_standard_error": _standard_error(costs) / whole,
        "guards_milliseconds_a_step": 1000 * median(costs),
        "guards_plain_step_seconds": whole,
        "guards_rounds": len(costs),
    }


def variants(learner: Learner, config: Config, folder: Path) -> dict[str, Step]:
    """Three ways to make a step of the same learner: plain, guarded, and guarded with its lines in `folder`."""
    metrics, modules = MetricsLog(folder / "metrics.jsonl"), ModulesLog(folder / "modules.jsonl")

    def guarded(batch: Batch, step: int) -> StepResult:
        learner.clock.start()
        learner.clock.end_of("data")
        return train_step(learner, batch, config, step)

    def logged(batch: Batch, step: int) -> None:
        result = guarded(batch, step)
        metrics.append("train", step, {**result.figures(), **learner.clock.means()})
        modules.append(step, by_part(learner.model, learner.optimiser, result.gradient_norms, updated=result.anomaly is None))

    def without_lines(batch: Batch, step: int) -> None:
        guarded(batch, step)

    return {"plain": lambda batch, step: plain_step(learner, batch, config, step), "guarded": without_lines, "logged": logged}


def plain_step(learner: Learner, batch: Batch, config: Config, step: int) -> None:
    """An update as in a loop that trusts its data."""
    model, optimiser = learner.model, learner.optimiser
    reseed(config.training.seed, step)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(config.optimiser, step)
    model.reduce_by(reduction_factor(config, step))
    model.train()
    optimiser.zero_grad()
    output = model(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B, batch.speakers_B)
    total_loss(output, batch, config, step).total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    clip_grad_norm_(model.parameters(), config.optimiser.clip_norm)
    optimiser.step()


def _costs(steps: dict[str, Step], batch: Batch, log_interval: int, *, sure: float) -> list[float]:
    """Seconds a step of the guards, round by round; one step in `log_interval` writes lines."""
    costs: list[float] = []
    orders = itertools.cycle(itertools.permutations(steps))
    while len(costs) < FEWEST_ROUNDS or (len(costs) < MOST_ROUNDS and _standard_error(costs) > sure):
        seconds = {name: _seconds(steps[name], batch, len(costs) + 10) for name in next(orders)}
        costs.append(seconds["guarded"] - seconds["plain"] + (seconds["logged"] - seconds["guarded"]) / log_interval)
    return costs


def _seconds(step: Step, batch: Batch, number: int) -> float:
    start = time.process_time()
    step(batch, number)
    return time.process_time() - start


def _standard_error(costs: list[float]) -> float:
    """Of the median, from the median distance to it: rounds that a busy machine disturbed hardly count."""
    middle = median(costs)
    deviation = 1.4826 * median(abs(cost - middle) for cost in costs)
    return 1.2533 * deviation / len(costs) ** 0.5


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
