"""The end of the launcher's own pod inside a pipeline: the run was terminated, or the pod was evicted and another will take its place.

Kubeflow kills a step within a second of SIGTERM, whatever its grace period, and what it prints goes nowhere. Terminating a run deletes nothing by
itself. So the question is asked and acted on at once, in a thread: the main thread may be waiting for a database.
"""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from tts.errors import PreemptedError
from tts.tuning.kubernetes.access import Cluster, OutOfReachError, RefusedError
from tts.tuning.kubernetes.launcher import KubernetesLauncher

NOT_FOUND = 404
TIMEOUT = 0.3, 0.4
"""Seconds for a connection and for an answer."""


def own_pod() -> str:
    """Name of the pod that this process runs in as a step of a pipeline; empty: it does not."""
    return os.environ.get("KFP_POD_NAME", "")


@contextmanager
def on_termination(launcher: KubernetesLauncher, pod: str) -> Iterator[None]:
    """While the block runs, SIGTERM ends this process within a second, with exit code 75, and the Job with it if the run was terminated.

    A launcher that has an owner asks the Workflow: it is gone or being deleted, was told to shut down, or has no time left, as Kubeflow terminates
    runs. Its own pod proves nothing: a node that shuts down or is short of memory ends one without deleting it, and the run goes on in another.

    Without an owner there is nobody else to ask: the run was terminated if nobody is deleting the launcher's `pod`, for Kubeflow kills the processes
    in it, while most of what evicts a pod deletes it. Where a node ended it all the same, the launcher that takes its place makes the Job anew.

    What cannot be found out leaves the Job to the launcher's lease. Main thread only.

    Args:
        launcher: Whose Job it is; one that was not started has none.
        pod: This process's own.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The number of a signal arrives in the pipe even while the main thread is inside a library. Handlers in Python would wait for it.
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGTERM, _nothing)
    threading.Thread(target=_listen, args=(reader, launcher, pod), name="termination", daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.set_wakeup_fd(before)
        os.close(writer)  # ends the thread


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Without a handler of Python's there is nothing in the pipe."""


def _listen(reader: int, launcher: KubernetesLauncher, pod: str) -> None:
    while numbers := os.read(reader, 64):
        if signal.SIGTERM in numbers:
            launcher.leave()  # whatever the main thread does in its last second
            with suppress(OutOfReachError, RefusedError):
                _end_job_of_terminated_run(launcher, pod)
            os._exit(PreemptedError.exit_code)
    os.close(reader)


def _end_job_of_terminated_run(launcher: KubernetesLauncher, pod: str) -> None:
    if launcher.job is None:
        return
    cluster, name, uid = launcher.job
    if _is_terminated(cluster, launcher.owner) if launcher.owner else not _is_deleted(cluster.read("GET", "pods", pod, timeout=TIMEOUT)):
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        cluster.read("DELETE", "jobs", name, body=options, timeout=TIMEOUT)


def _is_terminated(cluster: Cluster, workflow: str) -> bool:
    """Whether the run of the Workflow is at its end, or on its way there. Raises OutOfReachError, RefusedError."""
    try:
        found = cluster.read("GET", "workflows", workflow, timeout=TIMEOUT)
    except RefusedError as error:
        if error.status == NOT_FOUND:
            return True
        raise
    spec = found.get("spec", {})
    return _is_deleted(found) or spec.get("activeDeadlineSeconds") == 0 or bool(spec.get("shutdown"))


def _is_deleted(thing: Mapping[str, Any]) -> bool:
    return bool(thing["metadata"].get("deletionTimestamp"))
