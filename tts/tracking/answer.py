"""Whether a store answers, asked once before work begins, so that a wrong address is told at once and not after a night of training."""

import threading
from collections.abc import Callable
from typing import TypeVar

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from tts.errors import ServiceUnavailableError, UsageError
from tts.tracking.location import Location
from tts.tracking.mlflow_store import MlflowStore, explain

T = TypeVar("T")
SECONDS = 10.0
"""In which a store must answer."""
ENDPOINT = "/api/2.0/mlflow/experiments/get-by-name"


def answering(location: Location) -> MlflowStore:
    """The store, opened.

    Raises UsageError where what answers is not MLflow or lets us in for nothing, ServiceUnavailableError where nothing answers in time or the
    server is broken, and what opening raises.
    """
    if location.remote:
        _ask(location)
    return _within(2 * SECONDS, location, lambda: MlflowStore(location))


def _ask(location: Location) -> None:
    def get() -> tuple[int, bool]:
        # Answers that are errors are looked at here; MLflow's own client would try again, or explain them as its own.
        answer = http_request(
            get_default_host_creds(location.uri), ENDPOINT, "GET", max_retries=0, timeout=SECONDS, raise_on_status=False,
            params={"experiment_name": location.experiment},
        )  # fmt: skip
        return int(answer.status_code), _is_mlflow(answer)

    try:
        status, known = _within(SECONDS + 2, location, get)
    except MlflowException as error:
        raise explain(error, location) from error
    if status in (401, 403):
        raise UsageError(
            f"MLflow at {location.public} answers {status}: it lets us in for nothing; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN"
        )
    if status >= 500 or status == 429:
        raise ServiceUnavailableError(f"MLflow at {location.public} answers {status}; see its log, or set --tracking.backend jsonl")
    if not known:
        raise UsageError(f"what answers at {location.public} (status {status}) is not MLflow; correct --tracking.uri")


def _is_mlflow(answer: object) -> bool:
    """MLflow answers with the experiment, or that there is none of that name, in JSON."""
    try:
        content = answer.json()  # type: ignore[attr-defined]  # requests' answer, which MLflow hands over untyped
    except ValueError:
        return False
    return isinstance(content, dict) and ("experiment" in content or content.get("error_code") == "RESOURCE_DOES_NOT_EXIST")


def _within(seconds: float, location: Location, call: Callable[[], T]) -> T:
    """The call's result. One that takes longer is left behind: a server may send a byte a minute, which no timeout of a request ends."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001  # raised again in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise ServiceUnavailableError(
            f"MLflow at {location.public} did not answer in {seconds:.0f} seconds; start it, or set --tracking.backend jsonl"
        )
    return results[0]
