"""Making a Job, taking over the one that is there, and deleting it."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from tts.errors import ServiceUnavailableError, UsageError
from tts.tuning.kubernetes.access import Cluster, RefusedError
from tts.tuning.kubernetes.books import JobState, job_state
from tts.tuning.kubernetes.names import APPLICATION, SHAPE, STUDY

logger = logging.getLogger(__name__)

MARGIN_SECONDS, MARGIN_PODS = 60, 5
"""Beyond their grace period, that pods may take to go: so many seconds, and one more for so many pods, as Kubernetes deletes them one by one."""
DELETE_SECONDS = 120.0
"""How long the API may be out of reach while we wish to leave."""
LOOK_SECONDS = 0.5
MANAGED = "app.kubernetes.io/managed-by"


class Maker:
    """Makes and deletes Jobs of ours in a namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def owner(self, workflow: str) -> dict[str, Any]:
        """The owner reference to an Argo Workflow: neither its controller nor in the way of its deletion. Raises UsageError."""
        try:
            found = self._cluster.ask("GET", "workflows", workflow, expected=(404,))
        except RefusedError as error:
            raise UsageError(
                f"workflow {workflow} is not in namespace {self._cluster.namespace} ({error}): trial pods must be in the namespace of their run"
            ) from error
        return {
            "apiVersion": found["apiVersion"], "kind": found["kind"], "name": workflow, "uid": found["metadata"]["uid"],
            "controller": False, "blockOwnerDeletion": False,
        }  # fmt: skip

    def make(self, body: Mapping[str, Any], *, source: str) -> dict[str, Any]:
        """The Job `body`: made, or found running with the same shape and taken over, in its new size; one that is no good any more is made anew.

        Raises:
            UsageError: The name is another's; the cluster does not take what the template `source` says, or refuses us.
            ServiceUnavailableError: The cluster is out of reach, or the pods of the old Job do not go.
        """
        name, shape = body["metadata"]["name"], body["metadata"]["annotations"][SHAPE]
        while True:
            try:
                made = self._cluster.ask("POST", "jobs", query={"fieldValidation": "Strict"}, body=body, expected=(400, 409, 422))
            except RefusedError as error:
                if error.status != 409:
                    said = str(error).replace("spec.template.", "")
                    raise UsageError(f"{source}: the cluster does not take this pod: {said}") from error
            else:
                logger.info("Job %s in namespace %s: %d pods at a time", name, self._cluster.namespace, body["spec"]["parallelism"])
                return made
            job = self._there(name)
            if job is None:
                continue
            self._check_ours(job, body)
            old = job_state(job)
            if why := _unfit(job, old, shape):
                logger.info("Job %s %s: it is made anew", name, why)
                grace = body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
                self.delete(name, old.uid, policy="Foreground", grace=grace, pods=old.parallelism)
                continue
            logger.info("Job %s in namespace %s is there and taken over", name, self._cluster.namespace)
            return self._sized(job, body)

    def delete(self, name: str, uid: str, *, policy: str, grace: int, pods: int) -> None:
        """Deletes the Job of this uid and waits until it and its `pods` are gone. Raises ServiceUnavailableError if they do not go."""
        limit = grace + MARGIN_SECONDS + pods // MARGIN_PODS
        try:
            options = {"propagationPolicy": policy, "preconditions": {"uid": uid}}
            self._cluster.ask("DELETE", "jobs", name, body=options, expected=(404, 409), seconds=DELETE_SECONDS)
        except RefusedError as error:
            logger.debug("Job %s: %s", name, error)  # it is gone, or another has its name
        end = time.monotonic() + limit
        query = {"labelSelector": f"batch.kubernetes.io/controller-uid={uid}", "limit": 1}
        while True:
            job = self._there(name)
            left = self._cluster.ask("GET", "pods", query=query, seconds=DELETE_SECONDS)["items"]
            if not left and (job is None or job["metadata"]["uid"] != uid):
                return
            if time.monotonic() > end:
                raise ServiceUnavailableError(
                    f"Job {name} in namespace {self._cluster.namespace} does not go within {limit} s"
                    + "".join(
                        f": pod {pod['metadata']['name']} on node {pod['spec'].get('nodeName')} does not end; is the node lost?" for pod in left
                    )
                )
            time.sleep(LOOK_SECONDS)

    def _there(self, name: str) -> dict[str, Any] | None:
        try:
            return self._cluster.ask("GET", "jobs", name, expected=(404,))
        except RefusedError:
            return None

    def _check_ours(self, job: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        metadata = job["metadata"]
        managed, study = metadata.get("labels", {}).get(MANAGED), metadata.get("annotations", {}).get(STUDY)
        if (managed, study) != (APPLICATION, body["metadata"]["annotations"][STUDY]):
            raise UsageError(
                f"Job {metadata['name']} in namespace {self._cluster.namespace} is not this study's: {MANAGED} is {managed!r}, {STUDY} is {study!r}; "
                "delete it or give the study another name"
            )

    def _sized(self, job: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        """The Job with as many pods as are wanted now."""
        numbers = ("completions", "parallelism", "maxFailedIndexes")
        wanted = {name: body["spec"][name] for name in numbers}
        if {name: job["spec"].get(name) for name in numbers} == wanted:
            return job
        try:
            return self._cluster.ask("PATCH", "jobs", job["metadata"]["name"], body={"spec": wanted}, expected=(422,))
        except RefusedError as error:
            logger.warning("Job %s keeps its %d pods: %s", job["metadata"]["name"], job["spec"]["parallelism"], error)
            return job


def _unfit(job: Mapping[str, Any], state: JobState, shape: str) -> str:
    """Why a Job of ours is not worth taking over, in words that follow its name; empty if it is."""
    if state.finished:
        return "has ended"
    if job["metadata"].get("deletionTimestamp") or job["metadata"]["annotations"].get(SHAPE) != shape:
        return "is of another shape, or being deleted"
    return "has lost workers, or waits after failures of them all" if state.worn else ""
