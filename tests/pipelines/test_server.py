"""Upload and submission against a stand-in of the server, through KFP's own client; what is wrong is said before anything is sent."""

import os
import shutil
import socket
import subprocess

import pytest
import yaml

from pipelines import COMPILED, server
from pipelines.commands import pipeline
from pipelines.form import Form
from pipelines.upload import version_of
from tests.pipelines.kfp_stand_in import serving
from tts import __version__
from tts.cli import main
from tts.errors import DataError, ServiceUnavailableError, TtsError, UsageError

FIELDS = ("corpus=s3://voices/anna", "preset=demo", "trials=3", "gpus=1", 'node_selector={"gpu": "a100"}')


@pytest.fixture
def backend(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # the client reads and writes a context there
    monkeypatch.delenv(server.TOKEN_VARIABLE, raising=False)
    timeout = socket.getdefaulttimeout()
    with serving() as held:
        monkeypatch.setenv(server.ENDPOINT_VARIABLE, held.host)
        yield held
    socket.setdefaulttimeout(timeout)


def test_a_version_is_uploaded_once(backend, capsys):
    for word in ("uploaded", "is there already"):
        pipeline(["upload", "--version", "v1"])
        assert word in capsys.readouterr().out
    assert [held["display_name"] for held in backend.pipelines] == ["smart-tuner-tts"]
    assert [held["display_name"] for held in backend.versions] == ["v1"]
    assert backend.versions[0]["bytes"] == COMPILED.read_text()
    pipeline(["upload", "--version", "v2"])
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{backend.host}/#/pipelines/details/{backend.pipelines[0]['pipeline_id']}/version/")
    assert len(backend.versions) == 2


def test_a_version_never_changes(backend, tmp_path):
    pipeline(["upload", "--version", "v1"])
    changed = tmp_path / "changed.yaml"
    changed.write_text(COMPILED.read_text().replace("displayName: Smart Tuner TTS", "displayName: Another"))
    with pytest.raises(UsageError, match=r"version v1 is on .* with another content, and versions never change; give another --version"):
        pipeline(["upload", "--version", "v1", "--package", str(changed)])
    assert len(backend.versions) == 1


def test_a_version_is_named_by_the_commit_and_by_what_was_changed_since(tmp_path):
    git = shutil.which("git")
    package = tmp_path / "training.yaml"
    package.write_text("a: 1\n")
    alone = version_of(package)
    assert alone.startswith(f"{__version__}-")
    for arguments in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "a"]):
        subprocess.run([git, *arguments], cwd=tmp_path, check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
    commit = subprocess.run([git, "rev-parse", "--short=12", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()
    assert version_of(package) == f"{__version__}-{commit}"
    package.write_text("a: 2\n")
    changed = version_of(package)
    assert changed.startswith(f"{__version__}-{commit}-")
    package.write_text("a: 3\n")
    assert version_of(package) not in (changed, alone)


def test_a_run_is_started_with_typed_fields(backend, capsys):
    pipeline(["submit", *FIELDS, "--experiment", "voices", "--run_name", "anna", "--service_account", "tts-launcher"])
    (run,) = backend.runs
    assert run["runtime_config"]["parameters"] == {
        "corpus": "s3://voices/anna", "preset": "demo", "trials": 3, "gpus": "1", "node_selector": {"gpu": "a100"},
    }  # fmt: skip
    assert (run["display_name"], run["service_account"]) == ("anna", "tts-launcher")
    assert run["experiment_id"] == backend.experiments[0]["experiment_id"]
    assert backend.experiments[0]["display_name"] == "voices"
    spec = run["pipeline_spec"]
    assert "platforms" in spec["platform_spec"], "placement goes along"
    assert spec["pipeline_spec"]["root"]["dag"]["tasks"]["prepare"]["cachingOptions"] == {"enableCache": True}
    assert capsys.readouterr().out.splitlines() == [f"run: {run['run_id']}", f"{backend.host}/#/runs/details/{run['run_id']}"]


def test_without_the_cache_every_step_is_done_anew(backend):
    pipeline(["submit", *FIELDS, "--no_cache"])
    tasks = backend.runs[0]["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert not any(task["cachingOptions"].get("enableCache") for task in tasks.values())


def look(state, **tasks):
    details = [
        {"display_name": name, "state": said.split(":")[0], **({"error": {"message": said.split(":")[1]}} if ":" in said else {})}
        for name, said in tasks.items()
    ]
    return {"state": state, "run_details": {"task_details": [*details, {"display_name": "tune-driver", "state": "SUCCEEDED"}]}}


def test_a_run_is_followed_to_its_end(backend, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.submit.POLL_SECONDS", 0.01)
    backend.states = [look("RUNNING", Tune="RUNNING"), look("RUNNING", Tune="RUNNING"), look("SUCCEEDED", Tune="SUCCEEDED", Train="SUCCEEDED")]
    pipeline(["submit", *FIELDS, "--wait"])
    shown = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert shown == ["Tune: running", "Tune: succeeded", "Train: succeeded", "succeeded"]


def test_a_failed_run_names_its_steps(backend, monkeypatch):
    monkeypatch.setattr("pipelines.submit.POLL_SECONDS", 0.01)
    backend.states = [look("FAILED", Prepare="SUCCEEDED", Tune="FAILED:exit status 1")]
    with pytest.raises(TtsError, match=r"failed: Tune \(exit status 1\); see http://.*/#/runs/details/") as raised:
        pipeline(["submit", *FIELDS, "--wait"])
    assert raised.value.exit_code == 1


def test_a_server_that_is_away_for_a_moment_is_waited_for(backend, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.submit.POLL_SECONDS", 0.01)
    monkeypatch.setattr("pipelines.server.WAITS", (0.01, 0.01, 0.01))
    backend.failing = 2
    pipeline(["submit", *FIELDS])
    assert len(backend.runs) == 1

    backend.states = [look("RUNNING"), {}, {}, look("SUCCEEDED")]
    pipeline(["submit", *FIELDS, "--wait"])
    assert capsys.readouterr().out.splitlines()[-1] == "ended: succeeded"
    assert backend.runs[-1]["looks"] == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["preset=demo"], "corpus is missing; give it as corpus=VALUE"),
        (["corpus="], "corpus is missing"),
        (["corpus=x", "prest=demo"], "'prest' is no field of pipeline smart-tuner-tts; did you mean preset?"),
        (["corpus=x", "zzz=1"], "choose among corpus, gpus"),
        (["corpus=x", "demo"], "'demo' is no field of the form; write NAME=VALUE"),
        (["corpus=x", "corpus=y"], "corpus is given twice"),
        (["corpus=x", "trials=5.5"], "trials must be a whole number, got '5.5'"),
        (["corpus=x", "node_selector=[1]"], r"node_selector must be a JSON object, got '\[1\]'"),
        (["corpus=x", "tolerations={"], "tolerations must be a JSON list"),
        (["corpus=x", "preset=big"], "preset 'big' is not known"),
        (["corpus=x", "trials=-3"], "tuning.trials"),
        (["corpus=x", "gpus=many"], "gpus must be a whole number"),
        (["corpus=x", "launcher=slurm"], "launcher must be kubernetes or local"),
        (["corpus=ftp://x/y"], "is no place for files"),
        (["corpus=x", 'overrides={"tuning.hourz": 1}'], "did you mean tuning.hours?"),
    ],
)
def test_what_is_wrong_with_a_field_is_said_before_anything_is_sent(backend, fields, message):
    with pytest.raises(UsageError, match=message):
        pipeline(["submit", *fields])
    assert (backend.experiments, backend.runs) == ([], [])


def test_a_file_that_is_no_compiled_pipeline_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist; compile the pipeline"):
        Form.of(tmp_path / "missing.yaml")
    for content in ("", "a: [", "a: 1", yaml.safe_dump({"root": {"inputDefinitions": {"parameters": {"a": 1}}}}), b"\xff\xfe\x00"):
        file = tmp_path / "other.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(DataError, match="is no compiled pipeline"):
            Form.of(file)


def test_a_server_that_is_away_is_named(backend, monkeypatch):
    monkeypatch.setattr("pipelines.server.WAITS", ())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ServiceUnavailableError, match=f"{host} does not answer"):
            pipeline(["submit", *FIELDS, "--endpoint", host])
    backend.failing = 1
    with pytest.raises(ServiceUnavailableError, match="503"):
        pipeline(["submit", *FIELDS])


def test_a_token_comes_from_the_environment_and_is_never_shown(backend, monkeypatch):
    backend.token = "secret-of-a-user"  # noqa: S105
    with pytest.raises(UsageError, match=r"refuses the connection with no token \(set KF_PIPELINES_TOKEN\)"):
        pipeline(["submit", *FIELDS])
    monkeypatch.setenv(server.TOKEN_VARIABLE, "another")
    with pytest.raises(UsageError, match="with the token in KF_PIPELINES_TOKEN") as raised:
        pipeline(["submit", *FIELDS])
    assert "another" not in str(raised.value)
    monkeypatch.setenv(server.TOKEN_VARIABLE, backend.token)
    pipeline(["submit", *FIELDS])
    assert len(backend.runs) == 1


def test_a_server_for_several_users_wants_a_namespace(backend):
    backend.multi_user = True
    with pytest.raises(UsageError, match="serves several users; say whose namespace with --namespace"):
        pipeline(["upload", "--version", "v1"])
    pipeline(["upload", "--version", "v1", "--namespace", "anna"])
    assert backend.pipelines[0]["namespace"] == "anna"


@pytest.mark.parametrize(("endpoint", "message"), [("", "no server is named"), ("kfp.example", "must begin with http")])
def test_an_endpoint_is_an_address(monkeypatch, endpoint, message):
    monkeypatch.delenv(server.ENDPOINT_VARIABLE, raising=False)
    with pytest.raises(UsageError, match=message):
        pipeline(["upload", "--endpoint", endpoint])


def test_the_program_offers_it_and_ends_as_with_its_own_commands(backend, capsys):
    assert main(["pipeline", "submit", "corpus=x", "prest=demo"]) == 64
    assert capsys.readouterr().err.splitlines() == ["tts: error: 'prest' is no field of pipeline smart-tuner-tts; did you mean preset?"]
    assert main(["pipeline", "submit", "--wiat"]) == 64
    assert main(["pipeline", "--help"]) == 0
    assert "upload" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "  pipeline  " in capsys.readouterr().out
