"""All stages in a row, and each as a step that can be run again over its own work: what is done is skipped, what is partial goes on."""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tts
from tts.config import Config
from tts.config.load import read_config, to_json
from tts.config.resolve import config_of
from tts.errors import UsageError
from tts.progress import Progress
from tts.storage import prepare_folder, write_text
from tts.tracking import NOTE, Tracker, open_tracker

if TYPE_CHECKING:
    from tts.tuning.launch import Launcher

logger = logging.getLogger(__name__)

STUDY_NAME = "tacotron2"
DONE = ".done.json"
"""In a stage's folder: what it was made from, and its figures."""


@dataclass(frozen=True)
class Stage:
    """What a stage came to."""

    name: str
    folder: Path
    done_before: bool
    figures: dict[str, float]
    note: str = ""


@dataclass(frozen=True)
class Chain:
    """Where the results are."""

    out: Path
    stages: list[Stage] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def report(self) -> Path:
        """The page that tells the whole story."""
        return self.out / "evaluation" / "report.html"

    @property
    def run(self) -> Path:
        """The trained voice."""
        return self.out / "run"


def run(corpus: Path, out: Path, config: Config, *, progress: Progress) -> Chain:
    """Recordings in, tuned voice and report out: prepare, tune, train, diagnose, evaluate, register below `out`.

    Raises whatever a stage raises; called again, it goes on with the stage that was left.
    """
    begun = time.monotonic()
    if finished(corpus, out, config):
        logger.info("%s: every stage is done", out)
        return Chain(out)
    prepare_folder(out)
    features, study, trained, evaluation = out / "features", out / "study", out / "run", out / "evaluation"
    with open_tracker(config.tracking, out, must_answer=not (study / NOTE).is_file()) as tracker:
        calls: tuple[Callable[[], Stage], ...] = (
            lambda: prepare(corpus, features, config, progress=progress),
            lambda: tune(features, study, config, tracker=tracker, tracking_folder=out, progress=progress),
            lambda: train(features, trained, config, study=study, tracker=tracker, progress=progress),
            lambda: diagnose(trained, out / "diagnostics"),
            lambda: evaluate(trained, features, evaluation, config, study=study, progress=progress),
            lambda: register(trained, evaluation, out / "registration", config, tracker=tracker),
        )
        stages = []
        for call in calls:
            stages.append(call())
            logger.info("%s", describe(stages[-1]))
    mark_finished(corpus, out, config)
    return Chain(out, stages, time.monotonic() - begun)


def prepare(corpus: Path, features: Path, config: Config, *, progress: Progress) -> Stage:
    """Recordings into features."""
    from tts.data.prepare import prepare as make

    made = make(corpus, features, config, progress=progress)
    figures = {"utterances": made.utterances, "rejected": made.rejected, "minutes": made.seconds / 60, "frames": made.frames}
    return Stage("prepare", features, made.reused, figures, f"fingerprint {made.fingerprint}")


def tune(
    features: Path,
    study: Path,
    config: Config,
    *,
    tracker: Tracker,
    tracking_folder: Path,
    progress: Progress,
    storage: str | None = None,
    name: str = STUDY_NAME,
    launcher: "Launcher | None" = None,
    ending: AbstractContextManager[None] | None = None,
) -> Stage:
    """The study. Without `storage` its database is a file in its folder; without `launcher` workers run as the configuration says.

    `ending` is entered around it: it answers SIGTERM where there is no time to hand trials back.
    """
    from tts.training.preemption import listen
    from tts.tuning.tune import tune as search

    with listen() as stop, ending or nullcontext():
        made = search(
            features, study, config, storage=storage, name=name, tracker=tracker, tracking_folder=tracking_folder, progress=progress, stop=stop,
            launcher=launcher,
        )  # fmt: skip
    figures = {"best_value": made.value, "best_trial": made.best, **{f"trials_{state}": number for state, number in made.counts.items()}}
    return Stage("tune", study, not made.ran, figures)


def train(features: Path, folder: Path, config: Config, *, study: Path | None, tracker: Tracker, progress: Progress) -> Stage:
    """The final training, with the study's best configuration over `config`."""
    from tts.training.preemption import listen
    from tts.training.run import run_training

    with listen() as stop:
        made = run_training(features, folder, best_of(study, config) if study else config, tracker=tracker, progress=progress, stop=stop)
    figures = {"steps": made.steps, "seconds": made.seconds, "skipped_updates": made.skipped_updates, **made.metrics}
    return Stage("train", folder, made.already_finished, figures)


def best_of(study: Path, config: Config) -> Config:
    """The configuration with the study's best values over it. Raises DataError, UsageError."""
    return read_config(study / "best.yaml", config)


def diagnose(trained: Path, out: Path) -> Stage:
    """What attention, gate and gradients did."""
    from tts.diagnostics.report import diagnose as examine

    return _once("diagnose", out, [trained / "run.json", trained / "metrics.jsonl"], lambda: examine(trained, out).metrics)


def evaluate(trained: Path, features: Path, out: Path, config: Config, *, study: Path | None, progress: Progress) -> Stage:
    """Synthesis of held-out sentences, metrics, verdict and the report."""
    from tts.evaluation.evaluate import evaluate as judge

    config = _judging(trained, config)

    def work() -> dict[str, float]:
        made = judge(trained, features, out, config, study=study, progress=progress)
        return {**made.metrics, "passed": float(made.passed)}

    sources: list[Path | str] = [trained / "run.json", trained / "metrics.jsonl", features / "features.json"]
    sources += [study / "study.json"] if study else []
    return _once("evaluate", out, [*sources, config.synthesis.model_dump_json(), config.evaluation.model_dump_json()], work)


def register(trained: Path, evaluation: Path, out: Path, config: Config, *, tracker: Tracker) -> Stage:
    """A version in the registry; champion only if it is better."""
    from tts.evaluation.register import register as enter

    config = _judging(trained, config)
    notes: list[str] = []

    def work() -> dict[str, float]:
        made = enter(trained, evaluation, tracker, config)
        notes.append(made.reason)
        write_text(out / "registration.json", json.dumps({**made.__dict__}, indent=1) + "\n")
        return {"version": made.version, "champion": float(made.champion)}

    stage = _once("register", out, [trained / "run.json", evaluation / "evaluation.json", config.tracking.model_dump_json()], work)
    return Stage(stage.name, stage.folder, stage.done_before, stage.figures, notes[0] if notes else "")


def _judging(trained: Path, config: Config) -> Config:
    """How a voice was made is settled; how it is judged and recorded is not."""
    return config_of(trained).model_copy(update={name: getattr(config, name) for name in ("training", "synthesis", "evaluation", "tracking")})


def describe(stage: Stage) -> str:
    """One line."""
    figures = ", ".join(f"{name} {value:.6g}" for name, value in stage.figures.items())
    return (
        f"{stage.name}: {'was done before' if stage.done_before else 'done'} ({stage.folder}){': ' if figures else ''}{figures} {stage.note}".rstrip()
    )


def finished(corpus: Path, out: Path, config: Config) -> bool:
    """Whether the whole chain ran to its end with this corpus and configuration. Raises DataError for a corpus that cannot be read."""
    key = _corpus_key(corpus, config)
    results = (Chain(out).report, out / "run" / "run.json", out / "registration" / "registration.json")
    return all(path.is_file() for path in results) and _read(out).get("key") == key


def mark_finished(corpus: Path, out: Path, config: Config) -> None:
    """Notes that the whole chain ran to its end."""
    write_text(out / DONE, json.dumps({"key": _corpus_key(corpus, config)}) + "\n")


def _corpus_key(corpus: Path, config: Config) -> str:
    from tts.data.corpus import corpus_digest, read_corpus

    return _key([corpus_digest(corpus, read_corpus(corpus)), to_json(config)])


def _once(name: str, folder: Path, sources: list[Path | str], work: Callable[[], dict[str, float]]) -> Stage:
    """Does the work unless the folder holds what it would make from the same sources."""
    key = _key(sources)
    known = _read(folder)
    if known.get("key") == key:
        return Stage(name, folder, done_before=True, figures=known["figures"])
    figures = {figure: float(value) for figure, value in work().items()}
    write_text(folder / DONE, json.dumps({"key": key, "figures": figures}) + "\n")
    return Stage(name, folder, done_before=False, figures=figures)


def _key(sources: list[Path | str]) -> str:
    digest = hashlib.sha256(tts.__version__.encode())
    for source in sources:
        try:
            digest.update(hashlib.sha256(source.read_bytes() if isinstance(source, Path) else source.encode()).digest())
        except FileNotFoundError:
            raise UsageError(f"{source} does not exist; run the stage that makes it first") from None
    return digest.hexdigest()


def _read(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / DONE).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
