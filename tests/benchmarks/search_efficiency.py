"""What the search is for: how many training steps until it has found what 30 full random trials find.

One corpus and one small network; the knobs that a study searches by default, over their own ranges; the default objective on the same held-out clips.
For each seed four studies of one worker each, through `tts.tuning.tune` like any other:

- `random`: 30 trials at random, none pruned. What its best trial reached is the target.
- `tpe` and `gp`: the default study, and the same with the other sampler: the configuration's own values first; Hyperband prunes.
- `blind`: the default study without that first trial's advantage: the configuration's own values are drawn at random, too.

Steps are those of all trials, pruned and failed ones included, up to the end of the first trial that reached the target. The figure is their
share of the steps of the 30 random trials. Studies are kept in build/search_efficiency/: after an interruption the same command goes on.

    python -m tests.benchmarks.search_efficiency            # three seeds, two studies at a time
    python -m tests.benchmarks.search_efficiency --default  # `random` and the default study only
    python -m tests.benchmarks.search_efficiency --quick    # whether it works: one seed, few and short trials
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from tts.config import Config, TuningConfig
from tts.config.load import override
from tts.config.presets import demo
from tts.data.demo_corpus import write_demo_corpus
from tts.data.prepare import prepare
from tts.progress import Silent
from tts.storage import write_text
from tts.threads import wait_patiently
from tts.tracking import NoTracker
from tts.tuning.database.storage import storage_url
from tts.tuning.search.space import search_space, suggest
from tts.tuning.search.strategy import sampler
from tts.tuning.tune import tune

FOLDER = Path("build") / "search_efficiency"
RESULTS = Path("build") / "search_efficiency.json"
TARGET = 1 / 3
NAME = "efficiency"
DEFAULT = TuningConfig().sampler
OTHER = "gp" if DEFAULT == "tpe" else "tpe"
KEYS = {
    "search": "search_steps_vs_random",
    "other": f"search_steps_vs_random_{OTHER}",
    "blind": "search_steps_vs_random_without_baseline",
}
HEADS = {"search": f"{DEFAULT}: steps to random's best", "other": OTHER, "blind": f"{DEFAULT} without the baseline"}
"""Figure and column of each kind of study that is compared with `random`."""

# The layout of the demo preset in a width at which a trial takes seconds, ten frames a step.
NETWORK = {
    "model.symbol_embedding": 32,
    "model.encoder_convolutions": 2,
    "model.encoder_lstm": 32,
    "model.attention": 32,
    "model.location_filters": 8,
    "model.location_kernel": 15,
    "model.attention_lstm": 64,
    "model.prenet": 32,
    "model.decoder_lstm": 64,
    "model.postnet_channels": 32,
    "model.postnet_convolutions": 3,
    "model.reduction_factor": 10,
    "data.frame_budget": 800,
    "data.held_out_max": 6,
    "training.threads": 1,
    "tracking.backend": "none",
    "tuning.workers": 1,
    "tuning.knobs": TuningConfig().knobs,
}


@dataclass(frozen=True)
class Scale:
    """How large the comparison is."""

    folder: Path
    seeds: int
    utterances: int
    steps: int
    """Of a trial that is not pruned."""
    reports: int
    random_trials: int
    search_trials: int

    def config(self, seed: int) -> Config:
        """The default study of `seed` on the small network; as many reports to a trial as by default."""
        budget = {"tuning.steps": self.steps, "tuning.validation_interval": self.steps // self.reports, "tuning.trials": self.search_trials}
        default = TuningConfig().model_dump(mode="json")
        chosen = {f"tuning.{name}": default[name] for name in default if name.startswith(("sampler", "startup", "pruner", "objective"))}
        return override(demo(), {**NETWORK, **chosen, **budget, "tuning.seed": seed})


FULL = Scale(FOLDER / "full", seeds=3, utterances=150, steps=240, reports=10, random_trials=30, search_trials=26)
QUICK = Scale(FOLDER / "quick", seeds=1, utterances=40, steps=20, reports=10, random_trials=4, search_trials=8)


@dataclass(frozen=True)
class Outcome:
    """A study against the random one of its seed."""

    best: float
    steps: int
    """Of all trials."""
    first: float
    """Value of the first trial."""
    share: float
    """Steps until the target was reached, over those of the random study; infinite where it was not."""


def studies(scale: Scale, seed: int) -> dict[str, Config]:
    """The configuration of each study of a seed."""
    search, blind = scale.config(seed), at_random(scale.config(1000 + seed))
    whole = {"tuning.sampler": "random", "tuning.pruner": "none", "tuning.trials": scale.random_trials, "tuning.seed": 2000 + seed}
    random = override(at_random(scale.config(2000 + seed)), whole)
    other = override(search, {"tuning.sampler": OTHER})
    return dict(zip(names(seed).values(), (random, search, other, blind), strict=True))


def names(seed: int) -> dict[str, str]:
    """The folder of each of them."""
    return {"random": f"random-{seed}", "search": f"{DEFAULT}-{seed}", "other": f"{OTHER}-{seed}", "blind": f"{DEFAULT}-blind-{seed}"}


def at_random(config: Config) -> Config:
    """The configuration with values drawn at random for the knobs that are searched: its first trial is as good as any."""
    tuning = config.tuning.model_copy(update={"sampler": "random"})
    space = search_space(tuning)
    study = optuna.create_study(sampler=sampler(tuning, 0, space))
    return override(config, suggest(study.ask(), tuning, space))


def history(folder: Path) -> list[tuple[int, float]]:
    """For each trial in turn the steps that it was trained, and its value, infinite if it has none."""
    study = optuna.load_study(storage=storage_url(folder, None), study_name=NAME)
    interval = json.loads((folder / "config.json").read_text(encoding="utf-8"))["tuning"]["validation_interval"]
    return [
        (_steps(trial, interval), trial.value if trial.state == TrialState.COMPLETE and trial.value is not None else math.inf)
        for trial in study.trials
    ]


def _steps(trial: FrozenTrial, interval: int) -> int:
    # One that failed did so before its next report; it counts as if it had come that far.
    return (trial.last_step or 0) + (interval if trial.state == TrialState.FAIL else 0)


def compare(trials: Sequence[tuple[int, float]], target: float, whole: int) -> Outcome:
    """How soon a study reached the target, in shares of `whole` steps."""
    steps = np.cumsum([taken for taken, _ in trials])
    reached = next((place for place, (_, value) in enumerate(trials) if value <= target), None)
    share = math.inf if reached is None else float(steps[reached]) / whole
    return Outcome(min(value for _, value in trials), int(steps[-1]), trials[0][1], share)


def outcomes(scale: Scale, seed: int, kinds: Sequence[str]) -> dict[str, Outcome]:
    """The studies of a seed, `random` against itself."""
    random = history(scale.folder / names(seed)["random"])
    target, whole = min(value for _, value in random), sum(steps for steps, _ in random)
    return {kind: compare(history(scale.folder / names(seed)[kind]), target, whole) for kind in ("random", *kinds)}


def measure(scale: Scale, console: Console, at_once: int, kinds: Sequence[str]) -> list[dict[str, Outcome]]:
    """Runs what is not there yet."""
    features = scale.folder / "features"
    corpus = scale.folder / "corpus"
    if not features.is_dir():
        write_demo_corpus(corpus, language="en", utterances=scale.utterances, seed=0, progress=Silent())
        prepare(corpus, features, scale.config(0), progress=Silent())

    def run(name: str, config: Config) -> None:
        summary = tune(features, scale.folder / name, config, storage=None, name=NAME, tracker=NoTracker(), progress=Silent())
        console.print(f"{name}: {summary.counts}, best {summary.value:.4g}")

    jobs = [(names(seed)[kind], studies(scale, seed)[names(seed)[kind]]) for kind in ("random", *kinds) for seed in range(scale.seeds)]
    with ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(run, name, config) for name, config in jobs]:
            done.result()
    return [outcomes(scale, seed, kinds) for seed in range(scale.seeds)]


def figures(found: Sequence[dict[str, Outcome]]) -> dict[str, float | None]:
    """Flat, for the JSON file; null where the target was not reached."""
    flat: dict[str, float | None] = {}
    for kind, key in KEYS.items():
        if kind not in found[0]:
            continue
        shares = [seed[kind].share for seed in found]
        flat[f"{key}_median"] = _number(median(shares))
        flat |= {f"{key}_seed_{place}": _number(share) for place, share in enumerate(shares)}
    for place, seed in enumerate(found):
        flat |= {f"{kind}_best_seed_{place}": outcome.best for kind, outcome in seed.items()}
        flat |= {f"{kind}_steps_seed_{place}": float(outcome.steps) for kind, outcome in seed.items()}
        flat[f"baseline_value_seed_{place}"] = _number(seed["search"].first)
    flat["seeds_in_which_the_baseline_alone_reached_it"] = float(sum(seed["search"].first <= seed["random"].best for seed in found))
    return flat


def table(found: Sequence[dict[str, Outcome]]) -> str:
    """Markdown."""
    kinds = [kind for kind in KEYS if kind in found[0]]
    head = ["seed", "best of random", "baseline", "best of search", *(HEADS[kind] for kind in kinds)]
    rows = [
        [str(place), *(f"{value:.3f}" for value in (seed["random"].best, seed["search"].first, seed["search"].best)), *_shares(seed, kinds)]
        for place, seed in enumerate(found)
    ]
    middle = [_share(median(seed[kind].share for seed in found)) for kind in kinds]
    lines = [head, ["--:"] * len(head), *rows, ["median", "", "", "", *middle]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shares(seed: dict[str, Outcome], kinds: Sequence[str]) -> list[str]:
    return [f"{_share(seed[kind].share)} of {seed['random'].steps:,}" for kind in kinds]


def _share(share: float) -> str:
    return f"{share:.0%}" if math.isfinite(share) else "not reached"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def main() -> int:
    """Measures, writes build/search_efficiency.json, prints the table."""
    parser = argparse.ArgumentParser(description="Training steps until the search has found what 30 full random trials find.")
    parser.add_argument("--quick", action="store_true", help="one seed, few and short trials: whether it works")
    parser.add_argument("--default", action="store_true", help="the default study only, not the other sampler nor the one without the baseline")
    parser.add_argument("--at-once", type=int, default=2, help="studies that run at the same time, one core each")
    options = parser.parse_args()
    wait_patiently()
    console = Console(stderr=True)
    found = measure(QUICK if options.quick else FULL, console, options.at_once, ["search"] if options.default else list(KEYS))
    results = RESULTS.with_stem("search_efficiency_quick") if options.quick else RESULTS
    write_text(results, json.dumps(figures(found), indent=2) + "\n")
    sys.stdout.write(table(found) + "\n")
    console.print(f"{results}; the aim is a median of {TARGET:.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
