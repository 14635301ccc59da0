"""A Kubeflow Pipelines server, through its own client; what it answers becomes an error of ours."""

import contextlib
import io
import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tts.errors import ServiceUnavailableError, UsageError

ENDPOINT_VARIABLE = "KF_PIPELINES_ENDPOINT"
TOKEN_VARIABLE = "KF_PIPELINES_TOKEN"  # noqa: S105  # a name, no secret
TIMEOUT_SECONDS = 60.0
"""For one answer."""
WAITS = (1.0, 2.0, 4.0)
"""Seconds between tries to reach the server."""
CONFLICT = 409


@dataclass(frozen=True)
class Server:
    """One that answered."""

    host: str
    client: Any
    """kfp.Client"""
    namespace: str | None

    def page(self, kind: str, name: str) -> str:
        """Address in the interface."""
        return f"{self.host}/#/{kind}/details/{name}"

    def ask(self, call: Callable[[], Any], what: str, *, allowed: tuple[int, ...] = ()) -> Any:
        """What `call` returns; None for an answer that is allowed, such as CONFLICT.

        Raises UsageError for what the server refuses, ServiceUnavailableError where it does not answer.
        """
        with translated(self.host, what, allowed) as outcome:
            outcome.value = call()
        return outcome.value


@dataclass
class Outcome:
    """Of one question."""

    value: Any = None


@contextmanager
def translated(host: str, what: str, allowed: tuple[int, ...] = ()) -> Iterator[Outcome]:
    """Turns the client's errors into ours, and keeps what it prints away."""
    from kfp_server_api.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    outcome = Outcome()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield outcome
    except ApiException as error:
        if error.status in allowed:
            return
        raise _error(host, what, error.status, _said(error)) from None
    except (HTTPError, OSError, TimeoutError) as error:
        raise ServiceUnavailableError(f"{host} does not answer ({_brief(error)}); is the address right, and the server up?") from None


def connect(host: str, namespace: str, ca: str = "") -> Server:
    """A server that answers.

    Args:
        host: Its address; empty: what KF_PIPELINES_ENDPOINT says. A token, if it wants one, is in KF_PIPELINES_TOKEN.
        namespace: Where runs of ours are, on a server for several users; empty elsewhere.
        ca: File with the certificate of its authority; empty: the system's.

    Raises UsageError, ServiceUnavailableError.
    """
    host = (host or os.environ.get(ENDPOINT_VARIABLE, "")).rstrip("/")
    if not host:
        raise UsageError(f"no server is named; give --endpoint, such as --endpoint http://localhost:8080, or set {ENDPOINT_VARIABLE}")
    if not host.startswith(("http://", "https://")):
        raise UsageError(f"--endpoint must begin with http:// or https://, got {host!r}")
    token = os.environ.get(TOKEN_VARIABLE) or None
    several = _health(host, token, ca).get("multi_user") is True
    if several and not namespace:
        raise UsageError(f"{host} serves several users; say whose namespace with --namespace")
    import kfp

    socket.setdefaulttimeout(TIMEOUT_SECONDS)  # the client sets none: a server that accepts and is silent would hold us for ever
    with translated(host, "the connection"):
        warnings.filterwarnings("ignore", message="This client only works with", category=FutureWarning)
        client = kfp.Client(host=host, existing_token=token, ssl_ca_cert=ca or None, **({"namespace": namespace} if namespace else {}))
    return Server(host, client, namespace or None)


def _health(host: str, token: str | None, ca: str) -> dict[str, Any]:
    """What the server says of itself: asked by ourselves, because the client tries for minutes and logs every try."""
    request = urllib.request.Request(f"{host}/apis/v2beta1/healthz")  # noqa: S310  # http or https, checked
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    context = ssl.create_default_context(cafile=ca or None) if host.startswith("https://") else None
    for wait in (*WAITS, None):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context) as answer:  # noqa: S310  # as above
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            if error.code < 500 or wait is None:
                raise _error(host, "the connection", error.code, error.reason) from None
        except (ValueError, TypeError):
            raise UsageError(f"what answers at {host} is no Kubeflow Pipelines (it has no /apis/v2beta1/healthz); name its API's address") from None
        except OSError as error:
            if wait is None or isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
                raise ServiceUnavailableError(f"{host} does not answer ({_brief(error)}); is the address right, and the server up?") from None
        time.sleep(wait)
    raise AssertionError("unreachable")


def _error(host: str, what: str, status: int | None, said: str) -> UsageError | ServiceUnavailableError:
    if status in (401, 403):
        source = f"the token in {TOKEN_VARIABLE}" if os.environ.get(TOKEN_VARIABLE) else f"no token (set {TOKEN_VARIABLE})"
        return UsageError(f"{host} refuses {what} with {source}: {said}")
    if status is None or status >= 500:
        return ServiceUnavailableError(f"{host} fails to answer about {what} ({status}: {said}); try again, or look at its log")
    return UsageError(f"{host} refuses {what} ({status}): {said}")


def _said(error: Any) -> str:
    """The sentence in an answer's body."""
    try:
        body = json.loads(error.body)
        return " ".join(str(body.get("message") or body.get("error") or error.reason).split())[:400]
    except (ValueError, TypeError, AttributeError):
        return str(error.reason)


def _brief(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return " ".join(str(reason or error).split())[:200]
