"""Commands whose arguments lie in an object store."""

import json
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests.storage.trees import tree, write
from tests.storage.wire import wire
from tts.cli.places import Folder, resolved
from tts.config.load import to_json
from tts.errors import DataError, PreemptedError, ServiceUnavailableError, UsageError
from tts.progress import Silent
from tts.storage import default_cache, exists, fetch, publish, published, write_bytes


@pytest.fixture(scope="module")
def config_file(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "tiny.json"
    path.write_text(to_json(tiny))
    return path


def _work():
    """What is still to be published on this machine."""
    work = default_cache() / "work"
    return sorted(path.name for path in work.iterdir() if path.is_dir()) if work.is_dir() else []


@pytest.mark.slow
def test_the_stages_from_store_to_store(tts, bucket, corpus, config_file, tmp_path):
    at = bucket.uri
    publish(corpus, f"{at}/my corpus")
    write_bytes(f"{at}/tiny.json", config_file.read_bytes())
    code, out, said = tts("prepare", f"{at}/my corpus", f"{at}/features", "--config", f"{at}/tiny.json")
    assert code == 0, said
    assert f"features: {at}/features " in out
    assert f"({at}/features/quality.json)" in out
    assert tts("prepare", f"{at}/my corpus", f"{at}/features", "--config", f"{at}/tiny.json")[1].startswith("already there: 20 utterances")

    code, out, said = tts("train", f"{at}/features", f"{at}/runs/voice", "--tracking.backend", "jsonl")
    assert code == 0, said
    assert out.startswith("trained: 6 steps")
    assert f"run: {at}/runs/voice\n" in out
    assert tts("train", f"{at}/features", f"{at}/runs/voice", "--tracking.backend", "jsonl")[1].startswith("already trained: 6 steps")
    assert tts("train", f"{at}/features", f"{at}/runs/voice", "--training.steps", "8", "--tracking.backend", "jsonl")[1].startswith(
        "trained: 8 steps"
    )

    code, out, said = tts("diagnose", f"{at}/runs/voice")
    assert code == 0, said
    assert f"diagnostics: {at}/runs/voice/diagnostics/diagnostics.html" in out
    assert bucket.get("runs/voice/diagnostics/diagnostics.html")

    code, out, said = tts("evaluate", f"{at}/runs/voice", f"{at}/features", "--evaluation.sentences", "1")
    assert code == 0, said
    assert f"report: {at}/runs/voice/evaluation/report.html" in out

    code, out, said = tts("register", f"{at}/runs/voice", "--tracking.registered_model", "voice")
    assert code == 0, said
    assert "registered: voice version 1" in out
    assert (fetch(f"{at}/runs/voice", tmp_path / "run") / "run.json").is_file(), "its evaluation beside it did not replace it"

    code, out, said = tts("synthesize", f"{at}/runs/voice", "A short test.", "-o", f"{at}/out.wav")
    assert code == 0, said
    assert f"speech: {at}/out.wav" in out
    assert bucket.get("out.wav")[:4] == b"RIFF"
    assert _work() == []


@pytest.mark.slow
def test_a_study_in_a_store(tts, bucket, features):
    at = bucket.uri
    publish(features, f"{at}/features")
    code, out, said = tts("tune", f"{at}/features", f"{at}/study", "--trials", "1")
    assert code == 0, said
    assert f"report: {at}/study/study.html" in out
    assert json.loads(bucket.get("study/study.json"))["trials"]
    code, out, said = tts("study", "show", f"{at}/study")
    assert code == 0, said
    assert "trials: 1 complete" in out
    before = published(f"{at}/study")
    assert tts("study", "export", f"{at}/study", f"{at}/exported.json")[1].endswith(f"to {at}/exported.json\n")
    assert published(f"{at}/study") == before
    assert tts("study", "extend", f"{at}/study", "--trials", "2")[0] == 0
    assert published(f"{at}/study") != before
    code, out, said = tts("tune", f"{at}/features", f"{at}/study", "--trials", "2")
    assert code == 0, said
    assert "trials: 2 complete" in out
    assert _work() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_training_that_is_stopped_is_published_and_goes_on_elsewhere(tts, bucket, features, monkeypatch, tmp_path, number, code):
    at = bucket.uri
    publish(features, f"{at}/features")
    argv = ["train", f"{at}/features", f"{at}/run", "--training.steps", "100000", "--training.checkpoint_interval", "10"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "tts.cli", *argv], stdout=log, stderr=log)
    end = time.monotonic() + 200
    work = default_cache() / "work"
    while not list(work.glob("run-*/run/checkpoints/index.json")):
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=120) == code, (tmp_path / "log").read_text()
    assert "the same command goes on from there" in (tmp_path / "log").read_text()
    step = json.loads(bucket.get("run/run.json"))["step"]
    assert step > 0
    assert _work() == []
    monkeypatch.setenv("TTS_CACHE", str(tmp_path / "another machine"))
    code, out, said = tts(*argv[:3], "--training.steps", str(step + 1), "--training.checkpoint_interval", "10")
    assert code == 0, said
    assert out.startswith(f"trained: {step + 1} steps")


def test_a_training_that_was_killed_goes_on_from_what_is_here(tts, bucket, features, tmp_path):
    at = bucket.uri
    publish(features, f"{at}/features")
    argv = ["train", f"{at}/features", f"{at}/run", "--training.checkpoint_interval", "10"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "tts.cli", *argv, "--training.steps", "100000"], stdout=log, stderr=log)
    end = time.monotonic() + 200
    while not (found := list((default_cache() / "work").glob("run-*/run/checkpoints/index.json"))):
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not exists(f"{at}/run")
    step = max(int(path.stem.removeprefix("step-")) for path in found[0].parent.glob("step-*.pt"))
    code, _, said = tts(*argv, "--training.steps", str(step))
    assert code == 0, said
    assert json.loads(bucket.get("run/run.json"))["step"] == step
    assert _work() == []


class _Fixture:
    """A place that is gone on with, without a command."""

    def __init__(self, place, **mark):
        self.place, self.mark = place, Folder("continued", **mark)

    def __call__(self):
        return resolved({"run": self.place}, {"run": self.mark}, Silent())


def test_a_store_that_is_away_at_the_end_loses_nothing(bucket, s3_endpoint, monkeypatch):
    run = _Fixture(f"{bucket.uri}/run")
    with wire(s3_endpoint) as seen:
        monkeypatch.setenv("AWS_ENDPOINT_URL", seen.uri)
        with pytest.raises(ServiceUnavailableError, match=r"what was made is kept in .*/work/run-"), run() as paths:
            write(paths["run"], {"a": b"1"})
            seen.answer = lambda _: (503, b"<Error><Code>SlowDown</Code></Error>")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    with pytest.raises(UsageError), run() as paths:
        assert tree(paths["run"]) == {"a": b"1"}
        raise UsageError("a mistake in the next command")
    assert bucket.get("run/a") == b"1"
    assert _work() == []


def test_what_was_not_published_gives_way_to_what_others_published(bucket, tmp_path):
    run = _Fixture(f"{bucket.uri}/run")
    with pytest.raises(RuntimeError), run() as paths:
        write(paths["run"], {"a": b"mine"})
        raise RuntimeError("a defect")
    publish(write(tmp_path / "theirs", {"a": b"theirs"}), f"{bucket.uri}/run")
    with run() as paths:
        assert tree(paths["run"]) == {"a": b"theirs"}


def test_another_ones_work_is_not_overwritten(bucket, tmp_path):
    run = _Fixture(f"{bucket.uri}/run")
    with pytest.raises(DataError, match=r"published by another process meanwhile.*kept in"), run() as paths:
        write(paths["run"], {"a": b"mine"})
        publish(write(tmp_path / "theirs", {"a": b"theirs"}), f"{bucket.uri}/run")
    assert bucket.get("run/a") == b"theirs"


def test_two_on_one_machine(bucket):
    run = _Fixture(f"{bucket.uri}/run")
    with run(), pytest.raises(UsageError, match="another process on this machine works on"), _Fixture(f"{bucket.uri}/run/")():
        raise AssertionError("both work there")


def test_an_error_before_any_work_publishes_nothing(bucket):
    with pytest.raises(PreemptedError), _Fixture(f"{bucket.uri}/run")():
        raise PreemptedError("stopped at once")
    assert bucket.keys() == []
    assert _work() == []


def test_what_is_made_is_published_only_when_it_is_done(bucket):
    made = ({"out": f"{bucket.uri}/out"}, {"out": Folder("made")}, Silent())
    with pytest.raises(DataError), resolved(*made) as paths:
        write(paths["out"], {"a": b"half"})
        raise DataError("no")
    assert bucket.keys() == []
    with resolved(*made) as paths:
        assert not paths["out"].exists()
        write(paths["out"], {"a": b"1"})
    assert bucket.keys() == ["out/.manifest.json", "out/a"]


def test_only_the_first_of_torchruns_processes_writes(bucket, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with _Fixture(f"{bucket.uri}/run")() as paths:
        write(paths["run"], {"a": b"1"})
    assert bucket.keys() == []


@pytest.mark.parametrize("ending", [".tar.gz", ".tgz", ".tar", ".tar.xz"])
@pytest.mark.parametrize("where", ["here", "store"])
def test_a_corpus_in_an_archive(bucket, corpus, tmp_path, ending, where):
    archive = tmp_path / f"LJSpeech-1.1{ending}"
    with tarfile.open(archive, f"w:{'' if ending == '.tar' else ending.rpartition('.')[2].replace('tgz', 'gz')}") as tar:
        tar.add(corpus, arcname="LJSpeech-1.1")
    place = str(archive)
    if where == "store":
        place = f"{bucket.uri}/corpora/{archive.name}"
        write_bytes(place, archive.read_bytes())
    given = ({"corpus": place}, {"corpus": Folder("read", "corpus")}, Silent())
    with resolved(*given) as paths:
        assert tree(paths["corpus"]) == tree(corpus)
    with resolved(*given) as again:
        assert again == paths


def test_an_archive_that_leads_elsewhere_or_is_none(tts, bucket, tmp_path):
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(__file__, arcname="../outside")
    code, _, said = tts("prepare", archive, tmp_path / "features")
    assert code == 65
    assert "evil.tar.gz is refused: '../outside' would be extracted" in said
    for content in (b"no archive", archive.read_bytes()[:100]):
        archive.write_bytes(content)
        code, _, said = tts("prepare", archive, tmp_path / "features")
        assert code == 65
        assert "evil.tar.gz cannot be unpacked (" in said
    code, _, said = tts("prepare", tmp_path / "missing.tar.gz", tmp_path / "features")
    assert code == 65
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ("prepare {at}/missing F", 65, "{at}/missing does not exist"),
        ("train {at}/missing R", 65, "{at}/missing does not exist"),
        ("train gs://bucket/f R", 64, "gs://... is no place for files"),
        ("train s3://no-such-bucket/f R", 65, "bucket no-such-bucket does not exist"),
        ("train {at}/other {at}/run", 65, "{at}/other"),
        ("train F R --config {at}/missing.yaml", 65, "{at}/missing.yaml does not exist"),
        ("diagnose {at}/other", 65, "{at}/other"),
        ("synthesize {at}/missing hello -o {at}/out.wav", 65, "{at}/missing does not exist"),
        ("study show {at}/missing", 65, "{at}/missing does not exist"),
        ("worker F --storage sqlite:///no.db --node_cache {at}/cache", 64, "{at}/cache: only a folder on this machine will do"),
    ],
)
def test_a_mistake_names_the_place_as_it_was_given(tts, bucket, tmp_path, monkeypatch, argv, code, message):
    monkeypatch.chdir(tmp_path)
    write_bytes(f"{bucket.uri}/other/file", b"not ours")
    result, out, said = tts(*(word.format(at=bucket.uri) for word in argv.split()))
    assert result == code, said
    assert message.format(at=bucket.uri) in said
    assert out == ""
    assert str(default_cache()) not in said
    assert list(tmp_path.iterdir()) == []
    assert bucket.keys() == ["other/file"]
    assert _work() == []
