"""What `tts tune` keeps of workers that ended or waited, and how a study without workers ends."""

import json
import re

import pytest

from tests.tuning.report.test_live import text_of
from tests.tuning.report.test_page import page_of
from tts.config.load import override
from tts.errors import DataError, PreemptedError, ServiceUnavailableError, TtsError, UsageError
from tts.progress import Silent
from tts.tracking import NoTracker
from tts.tuning.fleet import KEPT, Fleet, check_reach, exit_code, launcher_of
from tts.tuning.launch import Ended, LocalLauncher, Workers
from tts.tuning.report.fleet import FleetRecord
from tts.tuning.report.snapshot import happened, snapshot, summary
from tts.tuning.tune import tune

EVICTED = Ended("worker 1", -15, "step 40\nstopping", "was evicted, as when its node is drained")
NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu"


def never():
    return False


def test_what_became_of_workers_outlasts_tune_and_the_last_of_it_is_kept(make_study, caplog):
    study = make_study()
    first = Fleet(study, never)
    first.heed(Workers(2, (), (f"2 pods wait: {NO_GPU}",)), spent=False)
    first.heed(Workers(1, (EVICTED,), (f"1 pod waits: {NO_GPU}",), ("worker 0 was killed for its memory",)), spent=False)
    first.heed(Workers(1, (EVICTED,), (), ("worker 0 was killed for its memory",)), spent=False)
    record = FleetRecord.of(study)

    assert [(ended.worker, ended.code, ended.reason, ended.log) for ended in record.ended] == [
        ("worker 1", -15, "was evicted, as when its node is drained", "step 40\nstopping")
    ]
    assert record.notes == ["worker 0 was killed for its memory"]
    assert record.waits == [f"1 pod waits: {NO_GPU}"], "a reason is one, whatever the number of pods"
    assert caplog.text.count("its trial waits for another worker") == 1

    again = Fleet(study, never)
    many = tuple(Ended(f"worker {number}", 1, "x" * 5000, "") for number in range(KEPT + 10))
    again.heed(Workers(0, many), spent=False)
    kept = FleetRecord.of(study)
    assert [ended.worker for ended in kept.ended] == [f"worker {number}" for number in range(10, KEPT + 10)]
    assert len(json.dumps(kept.model_dump(mode="json"))) < 60_000, "what a text column of any database holds"
    assert kept.notes == record.notes


def test_workers_that_end_with_their_study_are_no_news(make_study, caplog):
    study = make_study()
    Fleet(study, never).heed(Workers(0, (Ended("worker 0", 0, "the study is at its end"),)), spent=True)
    assert FleetRecord.of(study) == FleetRecord()
    assert caplog.text == ""


def test_the_page_shows_them_among_the_failures(make_study, tmp_path):
    study = make_study()
    Fleet(study, never).heed(Workers(1, (EVICTED,), (f"2 pods wait: {NO_GPU}",), ("worker 0 was killed for its memory",)), spent=False)
    page = page_of(study, tmp_path)

    assert [row[1:] for row in page.tables["failures"][:1]] == [["worker 1", "was evicted, as when its node is drained"]]
    assert page.tables["failures"][1:] == [["worker 0 was killed for its memory"], [f"2 pods wait: {NO_GPU}"]]
    assert "<pre>step 40\nstopping</pre>" in page.document


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (Ended("worker 0", 64, "", ""), 64),
        (Ended("worker 0", -9, "", "was killed for its memory (OOMKilled, limit 1Gi)"), -9),
        (Ended("worker 0", 1, "", "did not start: ErrImagePull: image not found"), UsageError.exit_code),
        (Ended("worker 0", 1, "", NO_GPU), ServiceUnavailableError.exit_code),
        (Ended("Job trials", 1, "", "was ended by the cluster (DeadlineExceeded)"), PreemptedError.exit_code),
        (Ended("worker 0", 65, "", "was evicted"), DataError.exit_code),
        (Ended("worker 0", 1, "a defect", ""), TtsError.exit_code),
    ],
)
def test_a_workers_own_exit_code_goes_before_the_clusters_words(ended, code):
    assert exit_code(ended) == code


class Gone:
    """All workers end at once, or wait and then do."""

    def __init__(self, *polls):
        self.polls = list(polls)

    def start(self, task, workers):
        pass

    def poll(self):
        return self.polls.pop(0) if len(self.polls) > 1 else self.polls[0]

    def preempted(self):
        pass

    def stop(self):
        pass


def test_a_study_without_workers_ends_as_they_did_and_shows_why(features, base, tmp_path, tts):
    polls = Workers(1, (), (f"1 pod waits: {NO_GPU}",)), Workers(0, (EVICTED,), (), ())
    folder = tmp_path / "study"
    with pytest.raises(PreemptedError, match="no worker left after 0 finished trials \\(worker 1 was evicted, as when its node is drained: stopping"):
        tune(features, folder, base, storage=None, name="voices", tracker=NoTracker(), progress=Silent(), launcher=Gone(*polls))

    code, out, _ = tts("study", "show", folder)
    assert code == 0
    assert "ended early: worker 1 was evicted, as when its node is drained\n" in out
    assert f"waited for: 1 pod waits: {NO_GPU}\n" in out
    shown = json.loads(tts("study", "show", folder, "--json")[1])
    assert [ended["worker"] for ended in shown["fleet"]["ended"]] == ["worker 1"]


def test_what_workers_wait_for_is_in_the_view_and_among_the_events_once(make_study):
    study = make_study()
    before = snapshot(study, workers=2)
    waits = snapshot(study, workers=2, waiting=(f"2 pods wait: {NO_GPU}",))
    fewer = snapshot(study, workers=2, waiting=(f"1 pod waits: {NO_GPU}",))

    assert f"2 pods wait: {NO_GPU}" in text_of(waits)
    assert NO_GPU not in text_of(before)
    assert f"2 workers; 2 pods wait: {NO_GPU}" in summary(waits)
    assert [(event.text, event.notable) for event in happened(None, waits)] == [(f"2 pods wait: {NO_GPU}", True)]
    assert happened(waits, fewer) == happened(fewer, before) == []
    assert len(text_of(waits, height=18).rstrip().splitlines()) <= 18


def test_workers_of_this_machine_are_the_default(base, tmp_path):
    assert isinstance(launcher_of(base, tmp_path), LocalLauncher)


def test_pods_cannot_share_a_file(tts, features, tmp_path):
    code, _, said = tts("tune", features, tmp_path / "study", "--launcher", "kubernetes")
    assert code == UsageError.exit_code
    assert re.search(r"its workers cannot share the file \S+study.db; give the URL of a database server with --storage", said)
    assert not (tmp_path / "study").exists()


def test_a_launcher_elsewhere_is_told_what_its_workers_must_find(features, base, tmp_path, postgres_url, caplog):
    config = override(base, {"tuning.launcher": "kubernetes"})
    with pytest.raises(PreemptedError):
        tune(
            features, tmp_path / "study", config, storage=postgres_url, name="voices", tracker=NoTracker(), progress=Silent(),
            launcher=Gone(Workers(0, (EVICTED,))),
        )  # fmt: skip
    assert "tuning.runs_uri is empty: the study's folder must be a volume" in caplog.text
    assert "the workers' template must mount them" not in caplog.text, "the launcher that was given knows where its workers find the features"
    check_reach(config, str(features), postgres_url)
    assert "the workers' template must mount them" in caplog.text
