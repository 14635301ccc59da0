"""`tts pipeline submit`: a run of the pipeline on a Kubeflow Pipelines server."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import tyro

from pipelines import COMPILED
from pipelines.form import Form, check
from pipelines.server import Server, connect
from pipelines.upload import Endpoint
from tts.errors import ServiceUnavailableError, TtsError

POLL_SECONDS = 2.0
AWAY_SECONDS = 300.0
"""How long the server may be out of reach while we wait for a run."""
ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")


class RunFailedError(TtsError):
    """A run that ended without success. Exit code 1, whatever its step ended with: the backend does not tell."""


def submit(
    fields: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE ...")],
    *,
    endpoint: Endpoint = "",
    package: Path = COMPILED,
    experiment: str = "smart-tuner-tts",
    run_name: str = "",
    namespace: str = "",
    service_account: str = "",
    no_cache: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    wait: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    ca: str = "",
) -> None:
    """Start a run of the pipeline.

    For example: tts pipeline submit corpus=s3://voices/anna preset=small gpus=1 --wait

    All fields are checked before anything is sent. A token, where the server wants one, is in the environment variable KF_PIPELINES_TOKEN.
    Exit codes with --wait: 0 the run succeeded; 1 it did not (its step's log and artefacts say why); 69 the server stayed out of reach.

    Args:
        fields: Fields of the pipeline's form.
        endpoint: Address of the Kubeflow Pipelines server.
        package: Compiled pipeline.
        experiment: Experiment that the run belongs to; made where it is not there.
        run_name: Name of the run; empty: the pipeline's and the time.
        namespace: Namespace, on a server for several users.
        service_account: Account of the run's pods; empty: the server's choice.
        no_cache: Do all steps anew, prepare too: for a corpus that has changed under the same name.
        wait: Stay until the run has ended, and show how its steps go.
        ca: File with the certificate of the server's authority; empty: the system's.
    """
    form = Form.of(package)
    values = form.filled(fields)
    if form.pipeline == Form.of(COMPILED).pipeline:
        check(values)
    server = connect(endpoint, namespace, ca)
    belongs = server.ask(lambda: server.client.create_experiment(experiment, namespace=server.namespace), f"experiment {experiment}")
    name = run_name or f"{form.pipeline} {datetime.now(tz=UTC):%Y-%m-%d %H:%M:%S}"
    run = server.ask(
        lambda: server.client.run_pipeline(
            belongs.experiment_id, name, pipeline_package_path=str(package), params=values,
            enable_caching=False if no_cache else None, service_account=service_account or None,
        ),
        f"the run {name!r}",
    )  # fmt: skip
    print(f"run: {run.run_id}")
    print(server.page("runs", run.run_id), flush=True)
    if wait:
        _wait(server, run.run_id)


def _wait(server: Server, run: str) -> None:
    """Shows how steps go until the run has ended. Raises RunFailedError, ServiceUnavailableError."""
    shown: dict[str, str] = {}
    for now in _looks(server, run):
        for name, state, _ in _tasks(now):
            if shown.get(name) != state:
                shown[name] = state
                print(f"{datetime.now(tz=UTC).astimezone():%H:%M:%S} {name}: {state.lower()}", flush=True)
        if now.state in ENDED:
            break
    print(f"ended: {now.state.lower()}")
    if now.state not in ("SUCCEEDED", "SKIPPED"):
        failed = [f"{name}{f' ({said})' if said else ''}" for name, state, said in _tasks(now) if state == "FAILED"]
        raise RunFailedError(f"run {run} {now.state.lower()}: {', '.join(failed) or 'no step says why'}; see {server.page('runs', run)}")


def _looks(server: Server, run: str) -> Iterator[Any]:
    """The run as it is now, again and again. A server that is away for a while is waited for."""
    answered = time.monotonic()
    while True:
        try:
            yield server.ask(lambda: server.client.get_run(run), f"run {run}")
            answered = time.monotonic()
        except ServiceUnavailableError:
            if time.monotonic() - answered > AWAY_SECONDS:
                raise
        time.sleep(POLL_SECONDS)


def _tasks(run: Any) -> Iterator[tuple[str, str, str]]:
    """Name, state and error of each step; the drivers that the backend puts before them are no steps."""
    details = run.run_details.task_details if run.run_details else None
    for task in details or ():
        name = str(task.display_name or "")
        if task.state and name not in ("root", "executor") and not name.endswith("-driver"):
            yield name, str(task.state), str(task.error.message if task.error else "")
