"""The launcher of trial pods on a real cluster: what it makes, takes over, tells and leaves. Workers are lines of shell."""

import pytest

from tests.cluster.cluster import eventually
from tests.cluster.launching import FOREVER, polled, room
from tts.errors import DataError, PreemptedError, ServiceUnavailableError, UsageError
from tts.tuning.kubernetes.launcher import KubernetesLauncher
from tts.tuning.launch import Workers

__all__ = ["room"]  # a fixture


def test_workers_run_as_pods_and_are_gone_when_they_are_stopped(room):
    launcher = room.launcher('echo "$@"; ' + FOREVER)
    launcher.start(room.task("My Voice"), 2)

    pods = room.running(launcher, 2)

    assert polled(launcher, lambda workers: not workers.waiting) == Workers(2, ())
    said = eventually(lambda: room.cluster.logs(pods[0].metadata.name, room.namespace), "its arguments")
    assert said.strip() == "worker s3://bucket/features --study My Voice --launched --node_cache /var/cache/tts"
    (job,) = room.jobs()
    assert "postgresql" not in str(job)
    assert not any("postgresql" in str(pod) for pod in pods)
    launcher.stop()
    assert (room.jobs(), room.cluster.core.list_namespaced_pod(room.namespace).items) == ([], [])
    launcher.stop()


def test_pods_of_the_programs_own_template_are_let_into_a_restricted_namespace_and_can_write_where_they_must(room):
    shell = 'for place in /tmp "$HOME" "$TMPDIR" /var/cache/tts; do touch "$place/x" || exit 1; done; touch /x 2>/dev/null && exit 2; ' + FOREVER
    launcher = room.launcher(shell)
    launcher.start(room.task(), 1)

    (pod,) = room.running(launcher, 1)

    assert not any("kube-api-access" in volume.name for volume in pod.spec.volumes)


def test_a_launcher_that_comes_after_another_was_killed_takes_the_job_over_and_changes_its_size(room):
    task = room.task()
    killed = room.launcher(FOREVER)
    killed.start(task, 2)
    before = room.running(killed, 2)
    killed.leave()  # as a process that is killed: nothing is deleted

    second = room.launcher(FOREVER)
    second.start(task, 2)
    assert polled(second, lambda workers: not workers.waiting).alive == 2
    assert [pod.metadata.uid for pod in room.pods(second)] == [pod.metadata.uid for pod in before]
    second.leave()
    third = room.launcher(FOREVER)
    third.start(task, 3)
    assert {pod.metadata.uid for pod in before} < {pod.metadata.uid for pod in room.running(third, 3)}
    assert polled(third, lambda workers: workers.alive == 3).ended == ()


def test_a_job_of_another_shape_is_made_anew(room):
    task = room.task()
    first = room.launcher(FOREVER)
    first.start(task, 1)
    (before,) = room.running(first, 1)
    first.leave()

    second = room.launcher(f"{FOREVER}; true")
    second.start(task, 1)

    (after,) = room.running(second, 1)
    assert after.metadata.uid != before.metadata.uid
    assert after.spec.containers[0].command[2] == f"{FOREVER}; true"


def test_a_job_with_our_name_that_is_not_ours_is_left_alone(room):
    task = room.task()
    ours = room.launcher(FOREVER)
    ours.start(task, 1)
    (job,) = room.jobs()
    ours.stop()
    job.metadata.annotations["smart-tuner-tts/study"] = "another"
    job.metadata.resource_version = job.metadata.uid = None
    job.spec.selector, job.spec.template.metadata.labels = None, {}
    room.cluster.batch.create_namespaced_job(room.namespace, job)

    with pytest.raises(UsageError, match=f"Job {job.metadata.name} in namespace {room.namespace} is not this study's"):
        room.launcher(FOREVER).start(task, 1)

    assert [found.metadata.annotations["smart-tuner-tts/study"] for found in room.jobs()] == ["another"]


@pytest.mark.parametrize(("code", "kind"), [(64, UsageError), (70, None)])
def test_a_worker_that_cannot_get_better_is_not_started_again(room, code, kind):
    launcher = room.launcher(f"echo last words >&2; exit {code}")
    launcher.start(room.task(), 1)

    workers = polled(launcher, lambda workers: workers.alive == 0)

    (ended,) = workers.ended
    assert (ended.worker, ended.code, ended.log) == ("worker 0", code, "last words")
    assert len(room.pods(launcher)) == len(workers.notes) == 1


def test_a_worker_that_may_get_better_is_started_again_as_often_as_allowed_and_its_failed_job_stays_to_be_looked_at(room):
    launcher = room.launcher("echo last words >&2; exit 65", pod_retries=1)
    launcher.start(room.task(), 1)

    workers = polled(launcher, lambda workers: workers.alive == 0)

    (ended,) = workers.ended
    assert (ended.code, str(ended)) == (DataError.exit_code, "worker 0 ended with exit code 65, bad data: last words")
    names = [pod.metadata.name for pod in room.pods(launcher)]
    assert list(workers.notes) == [f"worker 0 ended with exit code 65, bad data (pod {name}): last words" for name in names]
    assert len(names) == 2
    launcher.stop()
    assert len(room.jobs()) == 1


def test_a_job_that_ended_is_made_anew_when_its_study_goes_on(room):
    task = room.task()
    first = room.launcher("exit 64")
    first.start(task, 1)
    polled(first, lambda workers: workers.alive == 0)
    first.stop()
    (before,) = room.jobs()

    second = room.launcher("exit 64")
    second.start(task, 1)
    polled(second, lambda workers: workers.alive == 0)

    (after,) = room.jobs()
    assert after.metadata.uid != before.metadata.uid


def test_workers_that_end_well_before_the_study_does_are_followed_by_others(room):
    launcher = room.launcher("exit 0", pod_retries=1)
    launcher.start(room.task(), 1)
    (first,) = room.jobs()

    workers = polled(launcher, lambda workers: workers.alive == 0)

    (job,) = room.jobs()
    assert job.metadata.uid != first.metadata.uid
    assert (workers.ended[-1].code, workers.notes) == (0, ())


@pytest.mark.parametrize(("shell", "code", "reason"), [("exit 137", -9, "SIGKILL"), ("exit 1", 1, "exit code 1"), ("exit 75", 75, "trial back")])
def test_how_a_worker_ended_is_told_by_its_code(room, shell, code, reason):
    launcher = room.launcher(shell, pod_retries=0)
    launcher.start(room.task(), 1)

    (ended,) = polled(launcher, lambda workers: workers.alive == 0).ended

    assert ended.code == code
    assert reason in ended.reason


def test_last_words_are_read_from_the_log_where_the_pod_does_not_keep_them(room):
    launcher = room.launcher("seq 1000; echo last words; exit 64", container={"terminationMessagePolicy": "File"})
    launcher.start(room.task(), 1)

    (ended,) = polled(launcher, lambda workers: workers.alive == 0).ended

    assert ended.log.splitlines()[-2:] == ["1000", "last words"]
    assert len(ended.log.splitlines()) < 100


def test_a_few_trials_for_each_pod_make_as_many_pods_as_there_are_trials(room):
    launcher = room.launcher('test "$8 $9" = "--trials_per_pod 1"', trials=3, trials_per_pod=1, pod_retries=0)
    launcher.start(room.task(), 2)

    assert launcher.poll().alive == 2
    eventually(lambda: [pod.status.phase for pod in room.pods(launcher)] == ["Succeeded"] * 3, "three pods succeed")
    assert launcher.poll().ended == ()


def test_a_deadline_ends_the_workers_and_is_told(room):
    launcher = room.launcher(FOREVER, deadline_hours=0.001)
    launcher.start(room.task(), 1)

    workers = polled(launcher, lambda workers: workers.alive == 0)

    assert workers.ended[-1].code == PreemptedError.exit_code
    assert "DeadlineExceeded" in str(workers.ended[-1])


def test_a_job_that_somebody_deletes_is_missed(room):
    launcher = room.launcher(FOREVER)
    launcher.start(room.task(), 1)
    room.running(launcher, 1)

    room.cluster.batch.delete_namespaced_job(launcher.job[1], room.namespace, propagation_policy="Background")

    workers = polled(launcher, lambda workers: workers.alive == 0)
    assert str(workers.ended[-1]) == f"Job {launcher.job[1]} was deleted by somebody else"
    launcher.stop()
    assert room.cluster.core.list_namespaced_pod(room.namespace).items == []


def test_an_object_that_the_cluster_does_not_know_is_refused_with_file_and_field(room):
    launcher = room.launcher(FOREVER, container={"imagee": "x"})

    with pytest.raises(UsageError, match=r'pod-0.yaml: the cluster does not take this pod: .*unknown field "spec.containers\[0\].imagee"'):
        launcher.start(room.task(), 1)
    with pytest.raises(UsageError, match=r"pod-1.yaml: the cluster does not take this pod: .*containers\[0\].imagePullPolicy: Unsupported value"):
        room.launcher(FOREVER, container={"imagePullPolicy": "Sometimes"}).start(room.task(), 1)


def test_a_workflow_that_is_not_there_is_named(room):
    launcher = KubernetesLauncher.of(room.config(FOREVER), owner="run-1")

    with pytest.raises(UsageError, match=f"workflow run-1 is not in namespace {room.namespace}"):
        launcher.start(room.task(), 1)


def test_a_queue_holds_the_job_until_it_is_admitted(room):
    launcher = room.launcher(FOREVER, queue="gpus", pending_minutes=0.001)
    launcher.start(room.task(), 2)

    assert polled(launcher, lambda workers: workers.waiting) == Workers(
        2, (), ("2 workers wait: the Job is suspended, queue gpus has not admitted it",)
    )
    (job,) = room.jobs()
    assert job.metadata.labels["kueue.x-k8s.io/queue-name"] == "gpus"

    def admit(suspended):
        room.cluster.batch.patch_namespaced_job(launcher.job[1], room.namespace, {"spec": {"suspend": suspended}})

    admit(False)  # as Kueue does
    room.running(launcher, 2)
    assert polled(launcher, lambda workers: not workers.waiting).alive == 2
    admit(True)  # and as it evicts
    assert polled(launcher, lambda workers: workers.waiting).alive == 2
    eventually(lambda: not room.pods(launcher), "its pods are gone")
    admit(False)
    room.running(launcher, 2)
    assert polled(launcher, lambda workers: not workers.waiting).ended == ()


def test_pods_that_wait_too_long_end_the_study_with_their_reason(room):
    launcher = room.launcher(FOREVER, gpus_per_trial=16, pending_minutes=0.02)
    launcher.start(room.task("voices"), 1)

    with pytest.raises(ServiceUnavailableError, match=r"study 'voices': no worker has run for 0.02 minutes .*Insufficient nvidia.com/gpu"):
        polled(launcher, lambda _: False)
