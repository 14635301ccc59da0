"""The launcher that runs workers as pods of one Indexed Job. Who launches the same study again takes the Job over."""

import logging
from collections.abc import Mapping
from typing import Any, Self

from tts.config import Config
from tts.errors import PreemptedError, TtsError
from tts.tuning.kubernetes.access import OUTAGE_SECONDS, Cluster, OutOfReachError, RefusedError, connect
from tts.tuning.kubernetes.books import JobBook, JobState, PodBook
from tts.tuning.kubernetes.job import build
from tts.tuning.kubernetes.making import Maker
from tts.tuning.kubernetes.reasons import Fate, brief
from tts.tuning.kubernetes.template import Template, read_template
from tts.tuning.kubernetes.waiting import Waiting
from tts.tuning.kubernetes.watch import Watch
from tts.tuning.launch import Ended, Task, Workers

logger = logging.getLogger(__name__)

RELIST_SECONDS = 300.0
"""Between two lists of all pods."""
RELIST_JOB_SECONDS = 30.0
"""... of the Job."""
REFUSED_SECONDS = 60.0
"""How long the API may refuse to show our own Job: a server that restarts may, for a moment."""
LOGS_AT_ONCE = 5
"""Logs read at a look at the workers: when all pods fail, a few tell what is wrong."""
LOG_LINES, LOG_BYTES = 20, 16384
NOTES = 500
"""Kept; a study in which more pods failed has nothing new to tell."""


class KubernetesLauncher:
    """Workers in pods. They outlive this process: `stop`, the study's end, a stale lease of the launcher, or the Job's deadline ends them."""

    def __init__(
        self,
        cluster: Cluster,
        template: Template,
        config: Config,
        *,
        placement: Mapping[str, Any] | None = None,
        owner: str = "",
        relist_seconds: float = RELIST_SECONDS,
    ) -> None:
        """As `of` makes one; `relist_seconds` is the time between two lists of all pods, in case a watch missed one."""
        self._cluster, self._template, self._config = cluster, template, config
        self._placement, self._owner = placement, owner
        self._maker = Maker(cluster)
        self._task, self._workers = Task("", "", ""), 0
        self._name = ""
        self._job: JobBook | None = None
        self._pods, self._watches = PodBook(), list[Watch]()
        self._waiting = Waiting(cluster, config.cluster)
        self._notes: list[str] = []
        self._relist_seconds = relist_seconds
        self._last: dict[int, Fate] = {}
        self._ended: dict[int, Ended] = {}
        self._rounds, self._complete = 0, False
        self._leaving = False

    @classmethod
    def of(cls, config: Config, *, placement: Mapping[str, Any] | None = None, owner: str = "") -> Self:
        """A launcher as section cluster of the configuration says. The cluster is not asked yet.

        Args:
            config: Sections cluster and tuning.
            placement: Where the pipeline's tune task was placed, as Kubeflow's TaskConfig says it: merged over the template.
            owner: Name of the run's Workflow, with which the Job goes; empty: none.

        Raises:
            UsageError: No kubeconfig, or a template that is no pod.
        """
        template = read_template(config.cluster.template)
        return cls(connect(config.cluster.namespace), template, config, placement=placement, owner=owner)

    @property
    def job(self) -> tuple[Cluster, str, str] | None:
        """Where the Job is, its name and its uid, once it was made."""
        return None if self._job is None else (self._cluster, self._name, self._job.state.uid)

    @property
    def owner(self) -> str:
        """Name of the run's Workflow, with which the Job goes; empty: none."""
        return self._owner

    @property
    def pods(self) -> int:
        """Pods that are known to live."""
        return len(self._pods.living())

    def start(self, task: Task, workers: int) -> None:
        """Makes the Job, or takes over the one that an earlier launcher of this study left.

        Raises:
            UsageError: A Job of that name is another's; the cluster refuses it, or us.
            ServiceUnavailableError: The cluster is out of reach.
        """
        self._task, self._workers = task, workers
        self._begin()

    def poll(self) -> Workers:
        """From what the watches know: nothing is asked, but a few logs of pods that failed.

        Raises:
            UsageError: The cluster refuses to show the Job.
            ServiceUnavailableError: It is out of reach for OUTAGE_SECONDS, or no pod has run for cluster.pending_minutes.
        """
        if self._job is None:
            raise TypeError("the launcher was not started")
        trouble = self._trouble()
        job = self._job.state
        self._read_fates()
        if job.finished == "Complete" and self._complete and self._rounds <= self._config.cluster.pod_retries:
            # Whoever asks again after the last pod succeeded has seen that the study's budget is not spent.
            logger.info("all pods of Job %s are done and the study is not: new ones begin", self._name)
            self._quiet()
            self._begin()
            job = self._job.state
        self._complete = job.finished == "Complete"
        if job.deleted or job.finished:
            if self._complete and self._rounds <= self._config.cluster.pod_retries:
                return Workers(job.parallelism, self._failed(job), trouble, tuple(self._notes))
            return Workers(0, (*self._failed(job), *_whole(self._name, job)), trouble, tuple(self._notes))
        failed = self._failed(job)
        waiting = () if trouble else self._waiting.lines(job, self._pods.living(), self._task.name, restarted=bool(self._notes))
        alive = max(0, min(job.parallelism, job.completions - job.succeeded - len(failed)))
        if job.succeeded >= job.completions:  # it is Complete in a moment, and then new ones may begin
            alive = job.parallelism
        return Workers(alive, failed, (*trouble, *waiting), tuple(self._notes))

    def stop(self) -> None:
        """Deletes the Job and waits until its pods are gone. A Job that ended by itself stays for cluster.ttl_seconds, to look at."""
        self._quiet()
        job, self._job = self._job, None
        if job is None or self._leaving or job.state.finished:
            return
        try:
            self._maker.delete(self._name, job.state.uid, policy="Background", grace=self._grace, pods=job.state.parallelism)
        except TtsError as error:
            logger.warning(
                "Job %s in namespace %s is not gone (%s); its pods end when the study does, or once they miss this program: kubectl delete job %s",
                self._name, self._cluster.namespace, error, self._name,
            )  # fmt: skip

    def preempted(self) -> None:
        """In a pod, which a drained node evicts, the Job stays for the launcher that is started again. If none is, its workers miss our sign."""
        if self._cluster.inside and self._job is not None:
            logger.info("Job %s is left to whoever launches the study again; its workers stop when nobody does", self._name)
            self.leave()

    def leave(self) -> None:
        """From now on the Job is another's concern: `stop` leaves it."""
        self._leaving = True

    def _begin(self) -> None:
        owner = self._maker.owner(self._owner) if self._owner else None
        body = build(self._task, self._workers, self._config, self._template, placement=self._placement, owner=owner)
        self._name = body["metadata"]["name"]
        self._grace: int = body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        job = self._maker.make(body, source=self._template.file)
        uid = job["metadata"]["uid"]
        self._rounds += 1
        self._job, self._pods = JobBook(job), PodBook()
        self._last, self._ended, self._complete = {}, {}, False
        mine = {"labelSelector": f"batch.kubernetes.io/controller-uid={uid}"}
        self._watches = [
            Watch(self._cluster, "jobs", {"fieldSelector": f"metadata.name={self._name}"}, self._job, relist_seconds=RELIST_JOB_SECONDS),
            Watch(self._cluster, "pods", mine, self._pods, relist_seconds=self._relist_seconds),
        ]
        for watch in self._watches:
            watch.start()

    def _quiet(self) -> None:
        for watch in self._watches:
            watch.stop()
        self._watches = []

    def _trouble(self) -> tuple[str, ...]:
        """Why the watches learn nothing, if they do not. Raises UsageError, ServiceUnavailableError after a while."""
        for watch in self._watches:
            if watch.broken:
                raise RuntimeError(f"nobody watches {watch.resource} any more")
            failure = watch.failure
            if failure is None:
                continue
            seconds, error = failure
            if isinstance(error, RefusedError):
                if seconds > REFUSED_SECONDS:
                    raise self._cluster.refused(error, "WATCH", watch.resource)
            elif seconds > OUTAGE_SECONDS:
                raise self._cluster.gone(error, seconds)
            if seconds > 5:
                return (f"the Kubernetes API at {self._cluster.server} has told nothing for {seconds:.0f} s: {error}; workers go on",)
        return ()

    def _read_fates(self) -> None:
        """Notes how pods ended since the last look, with a few of their last words."""
        for number, fate in enumerate(self._pods.fates()):
            told = self._with_log(fate) if fate.container and number < LOGS_AT_ONCE else fate
            self._last[told.index] = told
            if len(self._notes) < NOTES:
                self._notes.append(str(told))

    def _with_log(self, fate: Fate) -> Fate:
        try:
            log = self._cluster.log(fate.pod, fate.container, lines=LOG_LINES, size=LOG_BYTES)
        except (OutOfReachError, RefusedError) as error:
            logger.debug("no log of pod %s: %s", fate.pod, error)
            return fate
        return Fate(fate.index, fate.pod, fate.code, fate.reason, log)

    def _failed(self, job: JobState) -> tuple[Ended, ...]:
        """Workers that are not started again, in the order in which they ended. One whose pod's end is not known yet is told of later."""
        for index in job.failed:
            if index in self._ended:
                continue
            fate = self._last.get(index)
            if fate is not None:
                code = 128 - fate.code if fate.code > 128 else fate.code
                self._ended[index] = Ended(f"worker {index}", code, fate.log.strip(), fate.reason)
            elif job.finished:
                self._ended[index] = Ended(f"worker {index}", TtsError.exit_code, "", "failed, and its pod is gone")
        return tuple(self._ended.values())


def _whole(name: str, job: JobState) -> tuple[Ended, ...]:
    """What befell the Job as a whole, beyond its single workers."""
    if job.deleted and not job.finished:
        return (Ended(f"Job {name}", PreemptedError.exit_code, "", "was deleted by somebody else"),)
    if job.finished == "Complete":
        return (Ended(f"Job {name}", 0, "", "is complete"),)
    if job.reason in ("FailedIndexes", ""):
        return ()
    code = PreemptedError.exit_code if job.reason == "DeadlineExceeded" else TtsError.exit_code
    return (Ended(f"Job {name}", code, "", f"was ended by the cluster ({job.reason}): {brief(job.message)}"),)
