import time

import pytest

from tts.tuning.database.failure import LeaseLostError
from tts.tuning.database.lock import study_lock
from tts.tuning.work.heartbeat import Heartbeat
from tts.tuning.work.queue import take

HERE, ELSEWHERE = "here-0123abcd-000000000000", "elsewhere-0123abcd-000000000000"


def never():
    return 0.0


def beating(study, *, stale_seconds=60.0):
    return Heartbeat(study, seconds=0.05, stale_seconds=stale_seconds)


def give_away(study, held):
    """What another worker does that finds a trial stale."""
    with study_lock(study.url, study.name):
        study.storage.release(held.id, {}, lease=None)


def test_a_trial_is_beaten_for_and_what_follows_a_beat_is_done(make_study, until):
    study = make_study()
    held = take(study, HERE, never)
    beats = []

    def last_beat():
        with study.storage.engine.connect() as connection:
            beats.append(connection.exec_driver_sql("SELECT heartbeat FROM trial_heartbeats").scalar())

    last_beat()
    with beating(study) as heartbeat, heartbeat.of(held.id, held.lease, last_beat):
        until(lambda: len(beats) >= 4)
        heartbeat.check()

    assert sorted(set(beats)) == beats


def test_a_worker_is_told_that_its_trial_was_given_away_and_its_next_trial_is_not_blamed(make_study, until):
    study = make_study()
    held = take(study, HERE, never)

    def lost():
        try:
            heartbeat.check()
        except LeaseLostError as error:
            return str(error)
        return ""

    with beating(study) as heartbeat:
        with heartbeat.of(held.id, held.lease, lambda: None):
            give_away(study, held)
            assert held.lease in until(lost)
        again = take(study, HERE, never)
        beats = []
        with heartbeat.of(again.id, again.lease, lambda: beats.append(1)):
            until(lambda: beats)
            assert not lost()


def test_a_note_that_is_refused_loses_the_lease_too(make_study, until):
    study = make_study()
    held = take(study, HERE, never)

    def then():
        give_away(study, held)
        study.storage.note(held.id, held.lease, {"seconds": 1.0})

    with beating(study) as heartbeat, heartbeat.of(held.id, held.lease, then), pytest.raises(LeaseLostError):
        until(lambda: heartbeat.check() or False, 5)
    assert "seconds" not in study.trials.trials[held.number].user_attrs


def test_a_worker_judges_nobody_before_its_own_beats_went_through_for_long_enough(make_study, until):
    study = make_study()
    begun = time.monotonic()
    with beating(study) as heartbeat:
        assert heartbeat.steady() == 0
        until(lambda: heartbeat.steady() >= 0.5)
        assert time.monotonic() - begun >= 0.5
        heartbeat._closed.set()  # no beat from here on
        until(lambda: heartbeat.steady() == 0)


def test_an_outage_of_the_database_makes_nobody_look_dead_and_is_told_once(make_study, postgres, until, caplog):
    study = make_study(url=postgres.database(), trials=3, heartbeat_seconds=0.1, stale_seconds=1.0)
    held = take(study, ELSEWHERE, never)
    with (
        Heartbeat(study, seconds=0.1, stale_seconds=1.0) as ours,
        Heartbeat(study, seconds=0.1, stale_seconds=1.0) as theirs,
        theirs.of(held.id, held.lease, lambda: None),
    ):
        until(lambda: ours.steady() >= 1.0)
        caplog.clear()
        postgres.stop()
        until(lambda: ours.steady() == 0)
        down = time.monotonic()
        until(lambda: time.monotonic() - down > 1.0)  # stale_seconds: whoever asked the database now would find them dead
        postgres.start()
        taken = take(study, HERE, ours.steady)
        with ours.of(taken.id, taken.lease, lambda: None):
            until(lambda: ours.steady() >= 1.0)
            second = take(study, HERE, ours.steady)
        theirs.check()
        until(lambda: "reach the study again" in caplog.text)

    assert {taken.number, second.number} == {1, 2}
    assert "interruptions" not in study.trials.trials[held.number].user_attrs
    assert caplog.text.count("no sign of life reaches the study") == 2  # one of each worker


def test_a_study_that_was_deleted_loses_its_workers_their_trials(make_study, until):
    study = make_study()
    held = take(study, HERE, never)

    with beating(study) as heartbeat, heartbeat.of(held.id, held.lease, lambda: None), pytest.raises(LeaseLostError):
        study.storage.delete_study(study.id)
        until(lambda: heartbeat.check() or False, 5)
