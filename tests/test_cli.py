"""The command line from the outside: what it prints, leaves behind and exits with."""

import json
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tts.cli import commands, main
from tts.cli.commands import COMMANDS
from tts.config import Config, knobs
from tts.config.load import to_json
from tts.config.presets import demo, small, tacotron2

HEAVY = ("torch", "mlflow", "optuna", "kfp", "matplotlib", "librosa", "scipy", "sqlalchemy", "boto3")


@pytest.fixture(scope="module")
def config_file(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "tiny.json"
    path.write_text(to_json(tiny))
    return path


def test_help_lists_the_commands(tts):
    code, out, _ = tts("--help")
    assert code == 0
    assert all(re.search(rf"^  {name} +\S", out, re.MULTILINE) for name in COMMANDS)
    assert tts()[1] == out
    assert tts("--version")[1].startswith("tts 0.")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_explains_itself(tts, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = tts(*name.split(), "--help")
    assert code == 0
    assert out.startswith(f"usage: tts {name} ")
    text = _words(out)
    assert COMMANDS[name].summary in text
    for knob in knobs(Config):
        if knob.path.split(".")[0] in COMMANDS[name].shown:
            assert f"--{knob.path} " in text
            assert knob.description in text


def test_help_shows_bounds_and_the_presets_defaults(tts, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = _words(tts("train", "--help")[1])
    budgets = f"default {tacotron2().data.frame_budget}; small {small().data.frame_budget}; demo {demo().data.frame_budget}"
    assert f"--data.frame_budget INT Mel frames in a batch, padding included. (>= 100; {budgets})" in text
    assert "--training.precision {fp32,bf16,fp16} " in text


def _words(boxed: str) -> str:
    return " ".join(re.sub(r"[│|]", " ", boxed).split())


def test_help_loads_nothing_heavy():
    program = f"import sys; from tts.cli import main; code = main(['--help']); print([n for n in {HEAVY!r} if n in sys.modules], code)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ("trian F R", 64, "'trian' is not a command; did you mean train?"),
        ("xyz", 64, "'xyz' is not a command; choose one of demo-corpus, prepare"),
        ("train", 64, "FEATURES is missing; see tts train --help"),
        ("train F R more", 64, "Unrecognized options: more; see tts train --help"),
        ("train F R --training.stepz 3", 64, "unknown option --training.stepz; did you mean --training.steps?"),
        ("train F R --presett demo", 64, "unknown option --presett; did you mean --preset?"),
        ("train F R --training.steps", 64, "Missing value for argument '--training.steps'"),
        ("evaluate R F --model.prenet 3", 64, "`tts evaluate` takes no knobs of section model"),
        ("prepare C F --audio.mels 9999", 64, "audio.mels: Input should be less than or equal to 256, got '9999'"),
        ("prepare C F --audio.mels=0", 64, "audio.mels: Input should be greater than or equal to 8, got '0'"),
        ("prepare C F --text.language fr", 64, "text.language: Input should be 'en' or 'ru', got 'fr'"),
        ("prepare C F --optimiser.learning_rate nan", 64, "optimiser.learning_rate: Input should be a finite number, got 'nan'"),
        ("prepare C F --tuning.objective [", 64, "tuning.objective: not YAML"),
        ("prepare C F --preset big", 64, "preset 'big' is not known; choose one of tacotron2, full, small, demo"),
        ("prepare C F --config missing.yaml", 64, "configuration file missing.yaml does not exist"),
        ("prepare gs://bucket/corpus F", 64, "gs://... is no place for files; expected a folder on this machine, s3://BUCKET/KEY or minio://"),
        ("demo-corpus D --utterances many", 64, "--utterances: invalid literal for int() with base 10: 'many'"),
        ("demo-corpus D --language fr", 64, "'fr'"),
        ("demo-corpus D --utterances 1000000", 64, "1000000"),
        ("prepare missing F", 65, "corpus missing does not exist"),
        ("train missing R", 65, "missing does not exist"),
        ("tune missing S", 65, "missing does not exist"),
        ("diagnose missing", 65, "missing"),
        ("evaluate missing F", 65, "missing does not exist"),
        ("register missing", 65, "missing does not exist"),
        ("synthesize missing hello", 65, "missing does not exist"),
        ("run missing O", 65, "corpus missing does not exist"),
        ("worker F --storage sqlite:///no.db", 65, "no.db does not exist"),
        ("worker F --storage nonsense", 64, "storage"),
    ],
)
def test_a_users_mistake_is_one_line(tts, tmp_path, monkeypatch, argv, code, message):
    monkeypatch.chdir(tmp_path)
    result, out, said = tts(*argv.split())
    assert result == code, said
    assert said.startswith("tts: error: ")
    assert message in said
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_then_features(tts, corpus, config_file, tmp_path):
    features = tmp_path / "features"
    code, out, _ = tts("prepare", corpus, features, "--config", config_file, "--text.unknown-symbol", "drop", "--training.steps", "7")
    assert code == 0
    assert re.search(r"^made: 20 utterances, 0\.\d minutes", out)
    assert f"features: {features}" in out
    stored = json.loads((features / "config.json").read_text())
    assert (stored["text"]["unknown_symbol"], stored["training"]["steps"]) == ("drop", 7)
    code, out, _ = tts("prepare", corpus, features, "--config", config_file, "--text.unknown_symbol=drop")
    assert out.startswith("already there: 20 utterances")


def test_a_run_then_its_reports(tts, features, tmp_path):
    run = tmp_path / "run"
    code, out, _ = tts("train", features, run, "--optimiser.learning_rate", "0.002", "--tracking.backend", "jsonl")
    assert code == 0
    assert out.startswith("trained: 6 steps")
    assert json.loads((run / "config.json").read_text())["optimiser"]["learning_rate"] == 0.002
    assert (run / "tracking.jsonl").is_file()
    assert tts("train", features, run, "--optimiser.learning_rate", "0.002", "--tracking.backend", "jsonl")[1].startswith("already trained: 6 steps")

    code, out, _ = tts("diagnose", run)
    assert code == 0
    assert (run / "diagnostics" / "diagnostics.html").is_file()
    assert str(run / "diagnostics" / "diagnostics.html") in out

    code, out, _ = tts("evaluate", run, features, "--evaluation.sentences", "1", "--output", tmp_path / "evaluation")
    assert code == 0
    assert out.startswith("verdict: ")
    assert len(json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["sentences"]) == 1

    code, out, _ = tts("register", run, "--evaluation", tmp_path / "evaluation", "--tracking.registered_model", "voice")
    assert code == 0
    assert out.startswith("registered: voice version 1, ")

    code, out, _ = tts("synthesize", run, "A short test.", "-o", tmp_path / "out.wav")
    assert code == 0
    assert (tmp_path / "out.wav").read_bytes()[:4] == b"RIFF"


def test_features_that_contradict_the_options(tts, features, tmp_path):
    code, _, said = tts("train", features, tmp_path / "run", "--audio.mels", "40")
    assert code == 64
    assert "audio.mels is 40, the features were prepared with 80" in said
    assert list(tmp_path.iterdir()) == []


def test_a_preset_over_features_keeps_their_audio(tts, corpus, tmp_path):
    features = tmp_path / "features"
    assert tts("prepare", corpus, features, "--audio.mels", "40", "--preset", "demo")[0] == 0
    code, _, said = tts("train", features, tmp_path / "run", "--preset", "small", "--training.precision", "fp16", "--training.device", "cuda")
    assert code == 64, "refused for the device, not for the features"
    assert "cuda" in said


def test_a_text_that_cannot_be_said(tts, trained, tmp_path):
    code, _, said = tts("synthesize", trained, "Привет", "-o", tmp_path / "out.wav")
    assert code == 64
    assert "cannot say 'п' (U+043F)" in said
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_a_text_file(tts, features, tmp_path):
    for folder, name, argv in (
        ("study", "study.db", ["tune", features, tmp_path / "study"]),
        ("run", "mlflow.db", ["train", features, tmp_path / "run", "--tracking.backend", "mlflow"]),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("shopping list\n")
        code, _, said = tts(*argv)
        assert code == 65
        assert name in said
        assert (tmp_path / folder / name).read_text() == "shopping list\n"


def test_a_file_where_the_output_should_go(tts, corpus, features, trained, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for argv in (
        ("demo-corpus", taken),
        ("prepare", corpus, taken),
        ("tune", features, taken),
        ("train", features, taken),
        ("train", features, taken / "below"),
        ("diagnose", trained, "--output", taken),
        ("evaluate", trained, features, "--output", taken),
        ("synthesize", trained, "hello", "-o", taken / "out.wav"),
        ("run", corpus, taken),
    ):
        code, _, said = tts(*argv)
        assert code == 73, (argv, said)
        assert str(taken) in said
        assert "choose another folder" in said
    assert taken.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [taken]


def test_a_damaged_checkpoint(tts, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for checkpoint in (run / "checkpoints").glob("*.pt"):
        checkpoint.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    code, _, said = tts("synthesize", run, "hello", "-o", tmp_path / "out.wav")
    assert code == 65
    assert re.search(r"step-\d+\.pt", said)
    assert not (tmp_path / "out.wav").exists()


class _Signalling:
    """A progress display that sends this process a signal at the first advance: Ctrl-C in the middle of a stage, every time."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    @contextmanager
    def task(self, title: str, total: int, done: int = 0):
        yield self

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        signal.raise_signal(self._number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
@pytest.mark.parametrize("stage", ["demo-corpus", "prepare", "train", "evaluate", "run"])
def test_a_stop_in_each_stage(tts, corpus, features, trained, config_file, tmp_path, monkeypatch, stage, number, code):
    target = tmp_path / "target"
    argv = {
        "demo-corpus": ["demo-corpus", target],
        "prepare": ["prepare", corpus, target, "--config", config_file],
        "train": ["train", features, target],
        "evaluate": ["evaluate", trained, features, "--output", target],
        "run": ["run", corpus, target, "--config", config_file],
    }[stage]
    monkeypatch.setattr(commands, "for_terminal", lambda: _Signalling(number))
    result, _, said = tts(*argv)
    assert result == code
    assert "the same command goes on" in said
    left = [path.name for path in tmp_path.iterdir()]
    if stage == "train":
        assert (target / "checkpoints" / "index.json").is_file()
    elif stage == "evaluate":
        assert left == ["target"]
        assert list(target.iterdir()) == []
    elif stage == "run":
        assert not (target / "features").exists()
    else:
        assert left == []
    monkeypatch.undo()
    if stage != "run":
        assert tts(*argv)[0] == 0, "the same command goes on"


def test_a_disk_that_fills_up(corpus, config_file, tmp_path):
    """A limit on file size stands in for a full disk: writes past it fail in the kernel."""
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000));"
    )
    program = f"{limited} from tts.cli import main; sys.exit(main(sys.argv[1:]))"
    argv = ["prepare", str(corpus), str(tmp_path / "features"), "--config", str(config_file)]
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 73, done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("tts: error: cannot write ")]
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves(tmp_path):
    process = subprocess.Popen([sys.executable, "-m", "tts.cli", "train", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors == ""


def test_verbose_shows_where_an_error_came_from(capsys):
    assert main(["prepare", "missing", "F", "--verbose"]) == 65
    assert "Traceback" in capsys.readouterr().err


def test_the_whole_chain(tts, corpus, config_file, tmp_path):
    out = tmp_path / "out"
    knob = ("--tuning.knobs", "optimiser.learning_rate", "--tuning.trials", "1", "--tracking.backend", "none")
    code, text, _ = tts("run", corpus, out, "--config", config_file, *knob)
    assert code == 0
    assert [line.split(":")[0] for line in text.splitlines()[:6]] == ["prepare", "tune", "train", "diagnose", "evaluate", "register"]
    assert (out / "evaluation" / "report.html").is_file()
    best = yaml.safe_load((out / "study" / "best.yaml").read_text())
    trained = json.loads((out / "run" / "config.json").read_text())
    assert trained["optimiser"]["learning_rate"] == best["optimiser"]["learning_rate"]
    code, text, _ = tts("run", corpus, out, "--config", config_file, *knob)
    assert text.startswith("every stage was done before")


def test_doctor(tts):
    code, out, _ = tts("doctor", "--json", "--tracking.backend", "none")
    assert code == 0
    assert {check["name"] for check in json.loads(out)} >= {"python", "torch", "espeak-ng", "study database", "tracking", "disk", "memory"}
    code, out, said = tts("doctor", "--tracking.uri", "nonsense")
    assert code == 1
    assert "does not work here: tracking" in said
    assert re.search(r"tracking +NO +tracking\.uri must begin with", out)


def test_preparing_again_with_other_sizes_sets_what_later_stages_start_from(tts, corpus, features, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(features, store)
    file = tmp_path / "sizes.yaml"
    file.write_text((features / "config.json").read_text())
    code, out, _ = tts("prepare", corpus, store, "--config", file, "--model.prenet", "16")
    assert code == 0
    assert out.startswith("already there")
    assert json.loads((store / "config.json").read_text())["model"]["prenet"] == 16
    assert tts("train", store, tmp_path / "run")[0] == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["prenet"] == 16
