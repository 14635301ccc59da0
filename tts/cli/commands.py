"""The commands. Each calls one function of a room and prints what was made, and where. Rooms are imported when they are called."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tts.chain import STUDY_NAME, describe
from tts.cli import doctor, katib, replay, tracking, watch
from tts.cli import study as study_commands
from tts.cli.arguments import Corpus, Features, Launcher, NewFeatures, NewRun, Out, Run, Storage, Store, Study, StudyName, WarmStart
from tts.cli.parse import Command, Folder
from tts.config import OBJECTIVES, Config
from tts.config.load import override
from tts.config.resolve import config_of
from tts.errors import UsageError
from tts.progress import for_terminal

if TYPE_CHECKING:
    from tts.training.preemption import StopFlag
    from tts.training.ranks import Ranks

ALL = tuple(Config.model_fields)
FITTING = ("data", "model", *OBJECTIVES, "optimiser", "training")


def demo_corpus(
    folder: Annotated[Path, Folder("continued"), tyro.conf.arg(metavar="DIR", help="Folder that the corpus becomes.")],
    *,
    language: Annotated[str, tyro.conf.arg(metavar="{en,ru}", help="Language of the sentences.")] = "en",
    utterances: Annotated[int, tyro.conf.arg(metavar="INT", help="Clips.")] = 300,
    seed: Annotated[int, tyro.conf.arg(metavar="INT", help="Seed of the choice of sentences.")] = 0,
    speakers: Annotated[int, tyro.conf.arg(metavar="INT", help="Voices that share the sentences; several come with a manifest.")] = 1,
) -> None:
    """Make a corpus without recordings: espeak-ng speaks sentences of ours."""
    from tts.data.demo_corpus import write_demo_corpus

    made = write_demo_corpus(folder, language=language, utterances=utterances, seed=seed, speakers=speakers, progress=for_terminal())
    print(f"{'already there' if made.reused else 'made'}: {made.utterances} clips, {made.seconds / 60:.1f} minutes of speech in {folder}")


def prepare(corpus: Corpus, features: NewFeatures, *, config: Config) -> None:
    """Check recordings and turn them into features.

    Clips that cannot be used are left out; quality.json in FEATURES says which and why.
    """
    from tts.data.prepare import prepare as make

    made = make(corpus, features, config, progress=for_terminal())
    print(f"{'already there' if made.reused else 'made'}: {made.utterances} utterances, {made.seconds / 60:.1f} minutes, {made.frames} frames")
    print(f"left out: {made.rejected} clips ({features / 'quality.json'})")
    print(f"features: {features}  fingerprint {made.fingerprint}")


def tune(
    features: Store,
    folder: Study,
    *,
    config: Config,
    storage: Storage = None,
    study: StudyName = STUDY_NAME,
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT", help="Short for --tuning.workers.", help_behavior_hint="")] = None,
    trials: Annotated[int | None, tyro.conf.arg(metavar="INT", help="Short for --tuning.trials.", help_behavior_hint="")] = None,
    launcher: Launcher = None,
    warm_start: WarmStart = None,
) -> None:
    """Search for the best hyperparameters with several workers, until the study's budget is spent.

    A study that was stopped goes on; one whose budget is spent goes on with a larger one, such as --trials, --tuning.hours.
    Workers run on this machine or, with --launcher kubernetes, in pods; those need a database server and --tuning.runs_uri.
    """
    from tts.storage import local
    from tts.tracking import NOTE, open_tracker
    from tts.training.preemption import listen
    from tts.tuning.database.address import given_storage
    from tts.tuning.database.storage import storage_url
    from tts.tuning.fleet import check_reach
    from tts.tuning.tune import plan_of
    from tts.tuning.tune import tune as search

    given = {"workers": workers, "trials": trials, "launcher": launcher}
    config = override(config, {f"tuning.{name}": value for name, value in given.items() if value is not None})
    # What cannot be searched, or not by such workers, is refused before a folder is made or a server asked.
    check_reach(config, features, storage_url(folder, given_storage(storage)))
    plan_of(local(features), folder, config)
    with listen() as stop, open_tracker(config.tracking, folder, must_answer=not (folder / NOTE).is_file()) as tracker:
        made = search(
            features, folder, config, storage=given_storage(storage), name=study, tracker=tracker, progress=for_terminal(), stop=stop,
            warm_start=warm_start,
        )  # fmt: skip
    print(f"trials: {', '.join(f'{number} {state}' for state, number in made.counts.items())}" + ("" if made.ran else " (were finished before)"))
    print(f"ended: {made.spent}")
    values = ", ".join(f"{'objective' if name == 'loss' else name} {value:.4g}" for name, value in made.values.items())
    print(f"best: trial {made.best}, {values}: {', '.join(f'{knob} {value}' for knob, value in made.params.items())}")
    print(f"best configuration: {made.best_file}")
    print(f"report: {folder / 'study.html'}")


def worker(
    features: Store,
    *,
    storage: Storage = None,
    study: StudyName = STUDY_NAME,
    trials_per_pod: Annotated[
        int, tyro.conf.arg(metavar="INT", help="Finished trials after which it ends; 0: with the study.", help_behavior_hint="(default 0)")
    ] = 0,
    node_cache: Annotated[
        Path | None,
        Folder("local"),
        tyro.conf.arg(metavar="DIR", help="Where features of a URI are kept, for all workers of a node.", help_behavior_hint="(default TTS_CACHE)"),
    ] = None,
    launched: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help="For pods that `tts tune` starts: ends once that gives no sign of life.", help_behavior_hint=""),
    ] = False,
) -> None:
    """Run trials of a study that `tts tune` made, until its budget is spent.

    The database is that of `tts tune`; its URL comes from --storage or, better where it holds a password, from the environment
    variable TTS_STORAGE. Where the study has no tuning.runs_uri its folder must be there too, under the same path: trials keep their
    checkpoints in it.
    """
    from tts.training.preemption import listen
    from tts.tuning.database.address import STORAGE_VARIABLE, given_storage, storage_url
    from tts.tuning.work.worker import work

    if trials_per_pod < 0:
        raise UsageError(f"--trials_per_pod must be at least 0, got {trials_per_pod}")
    given = given_storage(storage)
    if given is None:
        raise UsageError(f"--storage is missing: the database of the study, such as sqlite:///STUDY/study.db; or set {STORAGE_VARIABLE}")
    with listen() as stop:
        worked = work(features, storage=storage_url(Path(), given), name=study, stop=stop, trials=trials_per_pod, launched=launched, cache=node_cache)
    over = f"it is at its end: {worked.spent}" if worked.spent else "others run the rest"
    print(f"finished {worked.finished} trials of study {study}; {over}")


def train(features: Features, run: NewRun, *, config: Config) -> None:
    """Train a voice; a run that was stopped goes on from its last checkpoint.

    On two GPUs: torchrun --standalone --nproc-per-node 2 -m tts train FEATURES RUN. Each process then takes a part of every batch, and the result is
    that of one; a run may go on with another number of processes. data.frame_budget is that of all together.
    """
    from tts.training.joining import joined, place_from_environment
    from tts.training.preemption import listen
    from tts.training.run import follow_training

    with listen() as stop, joined(place_from_environment(), config.training.device) as ranks:
        if ranks.leads:
            _lead(features, run, config, stop, ranks)
            return
        code = follow_training(features, config, stop=stop, ranks=ranks)
    raise SystemExit(code)


def _lead(features: Path, run: Path, config: Config, stop: "StopFlag", ranks: "Ranks") -> None:
    from tts.tracking import NOTE, open_tracker
    from tts.training.run import run_training

    with open_tracker(config.tracking, run, must_answer=not (run / NOTE).is_file()) as tracker:
        made = run_training(features, run, config, tracker=tracker, progress=for_terminal(), stop=stop, ranks=ranks)
    figures = ", ".join(f"{name} {value:.4g}" for name, value in made.metrics.items())
    print(f"{'already trained' if made.already_finished else 'trained'}: {made.steps} steps in {made.seconds:.0f} s")
    print(f"best: step {made.best_step}: {figures}")
    print(f"run: {run}")


def diagnose(
    run: Run,
    *,
    output: Annotated[
        Path | None,
        Folder("made", below="run/diagnostics"),
        tyro.conf.arg(metavar="OUT", help="Folder of the report.", help_behavior_hint="(default RUN/diagnostics)"),
    ] = None,
) -> None:
    """Show what attention, stop gate and gradients did in a run."""
    from tts.diagnostics.report import diagnose as examine

    config_of(run)  # before a folder is made in what is no run
    out = output or run / "diagnostics"
    found = examine(run, out)
    for finding in found.findings:
        print(f"{finding.level}: {finding.text}" + (f" {finding.advice}" if finding.advice else ""))
    print(f"diagnostics: {found.html}")


def evaluate(
    run: Run,
    features: Features,
    *,
    config: Config,
    study: Annotated[Path | None, Folder(), tyro.conf.arg(metavar="STUDY", help="Study that led to the run.", help_behavior_hint="")] = None,
    output: Annotated[
        Path | None,
        Folder("made", below="run/evaluation"),
        tyro.conf.arg(metavar="OUT", help="Folder of the report.", help_behavior_hint="(default RUN/evaluation)"),
    ] = None,
) -> None:
    """Let the voice speak held-out sentences, measure it, and report the whole story."""
    from tts.evaluation.evaluate import evaluate as judge

    out = output or run / "evaluation"
    made = judge(run, features, out, config, study=study, progress=for_terminal())
    print(f"verdict: {'passed' if made.passed else 'failed'}; {', '.join(f'{name} {value:.4g}' for name, value in made.metrics.items())}")
    print(f"report: {out / 'report.html'}")


def register(
    run: NewRun,
    *,
    config: Config,
    evaluation: Annotated[
        Path | None,
        Folder("read", below="run/evaluation"),
        tyro.conf.arg(metavar="DIR", help="Evaluation of the run.", help_behavior_hint="(default RUN/evaluation)"),
    ] = None,
) -> None:
    """Put the voice into the model registry; it becomes champion only if it is better than the one that is."""
    from tts.evaluation.register import register as enter
    from tts.tracking import open_tracker

    with open_tracker(config.tracking, run) as tracker:
        made = enter(run, evaluation or run / "evaluation", tracker, config)
    print(f"registered: {made.name} version {made.version}, {'champion' if made.champion else 'not champion'}: {made.reason}")


def synthesize(
    run: Run,
    text: Annotated[str, tyro.conf.arg(metavar="TEXT", help="What to say.")],
    *,
    output: Annotated[
        Path, Folder("made", "file"), tyro.conf.arg(aliases=["-o"], metavar="WAV", help="File to write.", help_behavior_hint="")
    ] = Path("speech.wav"),
    speaker: Annotated[str, tyro.conf.arg(metavar="NAME", help="Who is to be heard, of a voice with several.", help_behavior_hint="")] = "",
    reference: Annotated[
        Path | None,
        Folder("read", "file"),
        tyro.conf.arg(metavar="WAV", help="Recording to speak like, for a voice with style tokens.", help_behavior_hint="(default: mean style)"),
    ] = None,
    style: Annotated[str, tyro.conf.arg(metavar="W,W,...", help="Or a weight for each style token, such as 0.3,0,0.7.", help_behavior_hint="")] = "",
    config: Config,
) -> None:
    """Speak a text with a trained voice."""
    from tts.evaluation.speak import synthesise_text
    from tts.evaluation.style import Style, parsed_weights

    made = synthesise_text(run, text, output, config, speaker=speaker, style=Style(reference, parsed_weights(style) if style else None))
    print(f"speech: {made.path}, {made.seconds:.1f} s")


def run(corpus: Corpus, out: Out, *, config: Config) -> None:
    """Do it all: prepare, tune, train, diagnose, evaluate and register. What is done already is skipped."""
    from tts.chain import run as run_chain

    made = run_chain(corpus, out, config, progress=for_terminal())
    for stage in made.stages:
        print(describe(stage))
    print(f"done in {made.seconds:.0f} s" if made.stages else "every stage was done before")
    print(f"voice: {made.run}")
    print(f"report: {made.report}")


COMMANDS = {
    command.name: command
    for command in (
        Command(demo_corpus, "demo-corpus", taken=(), shown=(), folder=""),
        Command(prepare, "prepare", taken=ALL, shown=("text", "audio", "quality", "data"), folder=""),
        Command(tune, "tune", taken=ALL, shown=("tuning", "cluster", *FITTING, "tracking"), folder="features"),
        Command(worker, "worker", taken=(), shown=(), folder=""),
        *study_commands.COMMANDS,
        *katib.COMMANDS,
        Command(train, "train", taken=ALL, shown=(*FITTING, "tracking"), folder="features"),
        *watch.COMMANDS,
        Command(replay.replay, "replay", taken=(), shown=(), folder=""),
        Command(diagnose, "diagnose", taken=(), shown=(), folder=""),
        Command(evaluate, "evaluate", taken=("training", "synthesis", "evaluation"), shown=("synthesis", "evaluation"), folder="run"),
        Command(register, "register", taken=("tracking",), shown=("tracking",), folder="run"),
        Command(synthesize, "synthesize", taken=("training", "synthesis"), shown=("synthesis",), folder="run"),
        Command(run, "run", taken=ALL, shown=ALL, folder=""),
        Command(tracking.flush, "tracking flush", taken=("tracking",), shown=("tracking",), folder=""),
        Command(doctor.doctor, "doctor", taken=("tracking",), shown=("tracking",), folder=""),
    )
}
