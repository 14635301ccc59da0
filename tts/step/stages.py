"""The steps: each is one stage of the chain, between artefacts of the pipeline."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts import chain
from tts.config import Config
from tts.config.resolve import overrides_from_json, resolve
from tts.errors import UsageError
from tts.progress import Lines
from tts.step import cluster
from tts.step.artefact import Artefact, Metrics, input_folder, output_folder, show
from tts.step.edge import end, running
from tts.step.keep import kept, kept_as_it_grows
from tts.step.ranks import train_together
from tts.storage import is_remote, opened
from tts.tracking import NOTE, NoTracker, Tracker, open_tracker
from tts.tracking.location import given_uri

logger = logging.getLogger(__name__)

LAUNCHERS = ("", "local", "kubernetes")


def prepare(corpus: str, features: Artefact, figures: Metrics, *, preset: str, language: str, overrides: str, work: str) -> None:
    """Recordings into features. `corpus` is a folder or an archive of one, here or in an object store."""
    with running("prepare", features, work):
        config = configuration(None, preset, overrides, {"text.language": language})
        folder = output_folder(features, work, "features")
        with kept(folder, work, "features"):
            stage = chain.prepare(opened(corpus, Lines()), folder, config, progress=Lines())
        show(end(stage), figures, features, fingerprint=stage.note.removeprefix("fingerprint "))


def tune(
    features: Artefact,
    study: Artefact,
    report: Artefact,
    figures: Metrics,
    *,
    preset: str,
    trials: int,
    workers: int,
    gpus: str,
    launcher: str,
    overrides: str,
    tracking_uri: str,
    work: str,
    workflow: str,
    image: str,
    placement: Mapping[str, Any],
) -> None:
    """The study. On a cluster its trials run in pods of their own, unless `launcher` is local.

    `workflow` names the pipeline's run; `image` and `placement` are what the pipeline set on this step, for the trial pods.
    """
    with running("tune", study, work, report):
        source, folder = input_folder(features, "features"), output_folder(study, work, "study")
        store = cluster.use_store_of(features)
        pods = on_pods(launcher)
        named = {
            "tuning.trials": trials, "tuning.workers": workers, "tuning.gpus_per_trial": devices(gpus), "tracking.uri": tracking_uri,
            **(cluster.knobs(study, work, image) if pods else {}),
        }  # fmt: skip
        config = configuration(source, preset, overrides, named)
        name = cluster.study_name(workflow, work) if pods else chain.STUDY_NAME
        launching = cluster.trial_pods(config, features, cluster.placement_of(placement, store), workflow) if pods else None
        with kept(folder, work, "study"):
            tracker, place = tracking(config, work, str(folder), shared=not pods, must_answer=not (folder / NOTE).is_file())
            with tracker:
                stage = chain.tune(
                    source, folder, config, tracker=tracker, tracking_folder=place, progress=Lines(), name=name,
                    storage=cluster.storage(pods=pods), launcher=launching, ending=launching.ending() if launching else None,
                )  # fmt: skip
        publish_page(folder / "study.html", report)
        show(end(stage), figures, study, study=name)


def train(
    features: Artefact,
    study: Artefact,
    run: Artefact,
    figures: Metrics,
    *,
    preset: str,
    training_steps: int,
    gpus: str,
    overrides: str,
    tracking_uri: str,
    work: str,
) -> None:
    """The final training, with the study's best configuration. It goes on from the last checkpoint that is in `work`."""
    with running("train", run, work):
        source, best, folder = input_folder(features, "features"), input_folder(study, "study"), output_folder(run, work, "run")
        named = {"training.steps": training_steps, "tracking.uri": tracking_uri}
        config = configuration(source, preset, overrides, named)
        with kept_as_it_grows(folder, work, "run"):
            tracker, _ = tracking(config, work, str(folder), must_answer=not (folder / NOTE).is_file())
            with tracker:
                if devices(gpus) > 1:
                    train_together(source, folder, chain.best_of(best, config), devices(gpus))
                stage = chain.train(source, folder, config, study=best, tracker=tracker, progress=Lines())
        show(end(stage), figures, run, framework="pytorch")


def diagnose(run: Artefact, diagnostics: Artefact, report: Artefact, figures: Metrics, *, work: str) -> None:
    """What attention, gate and gradients did."""
    with running("diagnose", diagnostics, work, report):
        source, folder = input_folder(run, "training run"), output_folder(diagnostics, work, "diagnostics")
        with kept(folder, work, "diagnostics"):
            stage = chain.diagnose(source, folder)
        publish_page(folder / "diagnostics.html", report)
        show(end(stage), figures, diagnostics)


def evaluate(
    run: Artefact,
    features: Artefact,
    study: Artefact,
    evaluation: Artefact,
    report: Artefact,
    figures: Metrics,
    *,
    preset: str,
    overrides: str,
    work: str,
) -> None:
    """Held-out sentences spoken, measured and judged; the report of the whole story."""
    with running("evaluate", evaluation, work, report):
        source, store = input_folder(run, "training run"), input_folder(features, "features")
        best, folder = input_folder(study, "study"), output_folder(evaluation, work, "evaluation")
        config = configuration(store, preset, overrides, {})
        with kept(folder, work, "evaluation"):
            stage = chain.evaluate(source, store, folder, config, study=best, progress=Lines())
        publish_page(folder / "report.html", report)
        show(end(stage), figures, evaluation)


def register(
    run: Artefact, evaluation: Artefact, registration: Artefact, figures: Metrics, *, preset: str, overrides: str, tracking_uri: str, work: str
) -> None:
    """A version in the registry; what came of it as an artefact."""
    with running("register", registration, work):
        source, judged = input_folder(run, "training run"), input_folder(evaluation, "evaluation")
        folder = output_folder(registration, work, "registration")
        config = configuration(source, preset, overrides, {"tracking.uri": tracking_uri})
        with kept(folder, work, "registration"):
            tracker, _ = tracking(config, work, "", spool=str(folder))
            with tracker:
                stage = chain.register(source, judged, folder, config, tracker=tracker)
        show(end(stage), figures, registration, reason=stage.note)


def configuration(folder: Path | None, preset: str, overrides: str, named: Mapping[str, Any]) -> Config:
    """Preset, then the form's named fields (0 and '' mean: not given), then its JSON of knobs."""
    # The backend does not tell 20 from 20.0, and takes 5.5 where the form asks for a whole number.
    numbers = {name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in named.items()}
    given = {name: value for name, value in numbers.items() if value not in ("", 0)}
    return resolve(folder=folder, name=preset, overrides={**given, **overrides_from_json(overrides)})


def on_pods(launcher: str) -> bool:
    """Whether trials run in pods: on a cluster, unless the form says local. Raises UsageError."""
    if launcher not in LAUNCHERS:
        raise UsageError(f"launcher must be kubernetes or local, or empty for what fits the place, got {launcher!r}")
    return launcher == "kubernetes" or (launcher == "" and cluster.in_pod())


def devices(gpus: str) -> int:
    """GPUs of a trial and of the training, as the form gives them: text, because the backend sets a pod's GPUs from no number. Raises UsageError."""
    text = str(gpus).strip()
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"gpus must be a whole number, 0 for none, got {gpus!r}")
    return int(text)


def tracking(config: Config, work: str, output: str, *, shared: bool = True, must_answer: bool = False, spool: str = "") -> tuple[Tracker, Path]:
    """The tracker, and the folder of its own store. Without a server, steps share a store only where they share a folder.

    `spool` is the folder where a step that makes no store of its own keeps what a server does not take at once. `shared` says whether all
    who record see that folder: trial pods do not.
    """
    folder = Path((work if work and not is_remote(work) else "") or output or spool)
    server = given_uri(config.tracking)
    lasting = (work and not is_remote(work)) or output
    if not server and config.tracking.backend != "none" and not (lasting and shared):
        logger.warning("no tracking server is named (tracking_uri, or the ConfigMap tts-tracking): this step records nothing that lasts")
        return NoTracker(), folder
    return open_tracker(config.tracking, folder, must_answer=must_answer), folder


def publish_page(page: Path, artefact: Artefact) -> None:
    """Copies a page to where the interface looks for it."""
    Path(artefact.path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(page, artefact.path)
