"""The Kubernetes API: who we are there, requests, and refusals in our own words."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes
import tenacity
import urllib3
import yaml
from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.config import ConfigException

from tts.errors import ServiceUnavailableError, TtsError, UsageError

logger = logging.getLogger(__name__)

OUTAGE_SECONDS = 300.0
"""How long the API may be out of reach once it has answered: its server is restarted in less."""
FIRST_SECONDS = 15.0
"""How long it may be out of reach the first time: more likely the address is wrong."""
TIMEOUT = 5.0, 30.0
"""Seconds for a connection, and between two pieces of an answer."""
LOG_TIMEOUT = 3.0, 5.0
"""As TIMEOUT, for logs: their node may be lost."""
NO_LOG = "unable to retrieve container logs for "
"""What a node sends as the log, with status 200, where it has none."""
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
GRANTS = "role tts-launcher in manifests/base/rbac.yaml"
PATHS = {
    "jobs": "/apis/batch/v1/namespaces/{namespace}/jobs",
    "pods": "/api/v1/namespaces/{namespace}/pods",
    "events": "/api/v1/namespaces/{namespace}/events",
    "workflows": "/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows",
}
TRANSIENT = (408, 429, 500, 502, 503, 504)
WITHOUT_CONFIGURATION = "no cluster to launch trial pods in: there is no kubeconfig at {place}, and this is no pod; set KUBECONFIG"


class OutOfReachError(Exception):
    """The API does not answer, or not now."""


class RefusedError(Exception):
    """The API said no."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Cluster:
    """A namespace of a cluster. Objects come as they are on the wire: turning 1,000 pods into the client's classes takes a second."""

    def __init__(self, client: ApiClient, namespace: str, account: str, *, inside: bool = False) -> None:
        """`inside`: this program runs in a pod of it."""
        self._client, self.namespace, self.account, self.inside = client, namespace, account, inside
        self.server: str = client.configuration.host
        self._answered = False

    def request(
        self, method: str, resource: str, name: str = "", *, query: Mapping[str, Any] | None = None, body: Any = None,
        timeout: tuple[float, float] = TIMEOUT,
    ) -> urllib3.BaseHTTPResponse:  # fmt: skip
        """One request; the answer's body is yet to be read. Raises OutOfReachError, RefusedError."""
        path = "/".join([PATHS[resource].format(namespace=self.namespace), *([name] if name else [])])
        content = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            answer: urllib3.BaseHTTPResponse = self._client.call_api(
                path, method, query_params=list((query or {}).items()), body=body, header_params={"Content-Type": content},
                auth_settings=["BearerToken"], _preload_content=False, _return_http_data_only=True, _request_timeout=timeout,
            )  # fmt: skip
        except ApiException as error:
            raise _problem(error) from error
        except (urllib3.exceptions.HTTPError, OSError, ConfigException) as error:  # the last: new credentials that could not be had
            raise OutOfReachError(_brief(error)) from error
        self._answered = True
        return answer

    def ask(
        self, method: str, resource: str, name: str = "", *, query: Mapping[str, Any] | None = None, body: Any = None,
        expected: tuple[int, ...] = (), seconds: float | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """One request, repeated while the API is out of reach: by default OUTAGE_SECONDS, or FIRST_SECONDS if it never answered.

        Raises:
            RefusedError: With one of the `expected` statuses.
            UsageError: With another; the message says what is missing and who grants it.
            ServiceUnavailableError: Out of reach.
        """
        limit = seconds or (OUTAGE_SECONDS if self._answered else FIRST_SECONDS)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(OutOfReachError),
            wait=tenacity.wait_exponential_jitter(0.3, max=10),
            stop=tenacity.stop_after_delay(limit),
            before_sleep=self._say_once,
            reraise=True,
        )
        try:
            answer: dict[str, Any] = retrying(lambda: self.read(method, resource, name, query=query, body=body))
        except RefusedError as error:
            if error.status in expected:
                raise
            raise self.refused(error, method, resource, name) from error
        except OutOfReachError as error:
            raise self.gone(error, limit) from error
        return answer

    def log(self, pod: str, container: str, *, lines: int, size: int) -> str:
        """The last lines of a container's log; empty where its node has thrown it away. Raises OutOfReachError, RefusedError."""
        query = {"container": container, "tailLines": lines, "limitBytes": size}
        said = self._bytes("GET", "pods", f"{pod}/log", query=query, timeout=LOG_TIMEOUT).decode(errors="replace")
        return "" if said.startswith(NO_LOG) else said

    def read(
        self, method: str, resource: str, name: str = "", *, query: Mapping[str, Any] | None = None, body: Any = None,
        timeout: tuple[float, float] = TIMEOUT,
    ) -> dict[str, Any]:  # fmt: skip
        """One request and its answer. Raises OutOfReachError, RefusedError."""
        answer: dict[str, Any] = json.loads(self._bytes(method, resource, name, query=query, body=body, timeout=timeout))
        return answer

    def gone(self, error: OutOfReachError, seconds: float) -> ServiceUnavailableError:
        """What to say when the API stayed out of reach."""
        return ServiceUnavailableError(
            f"the Kubernetes API at {self.server} is out of reach after {seconds:.0f} s ({error}); the same command goes on once it is back"
        )

    def refused(self, error: RefusedError, method: str, resource: str, name: str = "") -> TtsError:
        """A refusal in words that help."""
        what = f"{resource} {name}".strip() + f" in namespace {self.namespace}"
        if error.status == 401:
            return UsageError(
                f"the Kubernetes API at {self.server} does not accept the credentials of {self.account} (401 Unauthorized): "
                "they are wrong or have expired; log in to the cluster again"
            )
        if error.status == 403 and "cannot" in str(error) and "resource" in str(error):
            return UsageError(
                f"{self.account} may not do this: {_verb(method, name)} {_spoken(resource, name)} in namespace {self.namespace}; "
                f"{GRANTS} grants it. The API at {self.server} says: {error}"
            )
        return UsageError(f"the Kubernetes API at {self.server} refuses {_verb(method, name)} {what} ({error.status} {error.reason}): {error}")

    def _bytes(self, method: str, resource: str, name: str, **request: Any) -> bytes:
        try:
            return self.request(method, resource, name, **request).data
        except (urllib3.exceptions.HTTPError, OSError) as error:  # cut off in the middle
            raise OutOfReachError(_brief(error)) from error

    def _say_once(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            logger.warning("the Kubernetes API at %s is out of reach (%s); it is asked again", self.server, state.outcome.exception())


def connect(namespace: str = "") -> Cluster:
    """A cluster by the kubeconfig, or from inside by the pod's service account. Nothing is asked yet.

    Args:
        namespace: Empty: that of this program's own pod, or of the kubeconfig's context.

    Raises:
        UsageError: Neither is there, or the kubeconfig is not usable.
    """
    configuration = Configuration()
    configuration.retries = False  # ours are bounded by time, and speak
    named = os.environ.get("KUBECONFIG") or "~/.kube/config"
    try:
        if any(Path(place).expanduser().exists() for place in named.split(os.pathsep)):
            kubernetes.config.load_kube_config(config_file=named, client_configuration=configuration)
            context = kubernetes.config.list_kube_config_contexts(config_file=named)[1]["context"]
            inside, account = context.get("namespace", "default"), f"user {context.get('user')} of the kubeconfig"
        elif os.environ.get("KUBERNETES_SERVICE_HOST"):
            kubernetes.config.load_incluster_config(client_configuration=configuration)
            inside, account = OWN_NAMESPACE.read_text(encoding="utf-8").strip(), "this pod's service account"
        else:
            raise UsageError(WITHOUT_CONFIGURATION.format(place=named))
    except (ConfigException, OSError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise UsageError(f"the kubeconfig {named} cannot be used: {' '.join(str(error).split()) or type(error).__name__}") from error
    return Cluster(ApiClient(configuration), namespace or inside, account, inside="KUBERNETES_SERVICE_HOST" in os.environ)


def _problem(error: ApiException) -> OutOfReachError | RefusedError:
    """What an answer that is not a success means."""
    if error.status == 0:  # TLS
        if "CERTIFICATE_VERIFY_FAILED" in str(error.reason):
            return RefusedError(0, "certificate", f"the server's certificate does not fit the kubeconfig: {_brief(error.reason)}")
        return OutOfReachError(_brief(error.reason))
    try:
        said = json.loads(error.body or b"{}")
    except ValueError:
        said = {}
    message = said.get("message") or f"{error.status} {error.reason}" if isinstance(said, dict) else str(error.reason)
    # A server that has just begun does not know its roles yet and forbids everything, naming the roles that it does not find.
    starting = error.status == 403 and "RBAC:" in message and "not found" in message
    if error.status in TRANSIENT or starting:
        return OutOfReachError(message)
    return RefusedError(int(error.status), str(error.reason), message)


def _verb(method: str, name: str) -> str:
    return {"POST": "create", "DELETE": "delete", "PATCH": "patch", "WATCH": "watch"}.get(method, "get" if name else "list")


def _spoken(resource: str, name: str) -> str:
    return f"{resource}/log" if name.endswith("/log") else f"{resource} {name}".strip()


def _brief(error: object) -> str:
    """The last part of a chain of messages, which names the cause."""
    text = " ".join(str(error).split())
    return text.rsplit(": ", 1)[-1].strip("'()") or type(error).__name__
