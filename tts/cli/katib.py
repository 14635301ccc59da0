"""Tuning by Katib, for platforms that have it."""

from pathlib import Path
from typing import Annotated

import tyro

from tts.cli.parse import Command, Folder
from tts.config import OBJECTIVES, Config
from tts.progress import Silent

Features = Annotated[Path, Folder(), tyro.conf.arg(metavar="FEATURES", help="Feature store, as `tts prepare` makes it.")]
Run = Annotated[Path, Folder("continued"), tyro.conf.arg(metavar="RUN", help="Folder of the trial's run.")]


def experiment(
    *,
    config: Config,
    features: Annotated[str, tyro.conf.arg(metavar="URI", help="Feature store, as pods see it.")] = "s3://tts/features",
    name: Annotated[str, tyro.conf.arg(metavar="NAME", help="Name of the Experiment.")] = "tts",
) -> None:
    """Print a Katib Experiment that searches the study's space.

    Its trials are `tts katib-trial` in the trial pods' template. What Katib lacks is refused, or named at the top.
    """
    from tts.tuning.katib.experiment import experiment_yaml

    print(experiment_yaml(config, features=features, name=name), end="")


def trial(features: Features, run: Run, *, config: Config) -> None:
    """Run one trial for Katib: train for a trial's steps and print its metrics for Katib's collector."""
    from tts.tracking import open_tracker
    from tts.training.preemption import listen
    from tts.tuning.katib.trial import trial as measure

    with listen() as stop, open_tracker(config.tracking, run) as tracker:
        for line in measure(features, run, config, tracker=tracker, progress=Silent(), stop=stop):
            print(line, flush=True)


SHOWN = ("tuning", "data", "model", *OBJECTIVES, "optimiser", "training", "tracking")
COMMANDS = (
    Command(experiment, "katib-experiment", taken=tuple(Config.model_fields), shown=("tuning", "cluster", *SHOWN[1:]), folder=""),
    Command(trial, "katib-trial", taken=tuple(Config.model_fields), shown=SHOWN, folder="features"),
)
