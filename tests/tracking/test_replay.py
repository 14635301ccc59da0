"""What records come to: the same in any process, whatever was torn, repeated or recorded by an attempt that others had followed."""

import fcntl
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tts.tracking.replay import Artefact, End, Metric, Replay, Start, Values
from tts.tracking.spool import Recorder, Spool, State, spools


def parts(spool: Spool, start: int = 0):
    replay = Replay()
    replay.skip(spool.records(stop=start))
    return list(replay.parts(spool.records(start)))


def metrics(spool: Spool, start: int = 0) -> list[tuple[str, int, float]]:
    found = [item for part in parts(spool, start) if isinstance(part.content, Values) for item in part.content.metrics]
    return [(item.name, item.step, item.value) for item in found]


def recorder(folder: Path, attempt: str = "", key: str = "run") -> Recorder:
    made = Recorder(Spool(folder, key), attempt) if attempt else Recorder(Spool(folder, key))
    made.append("start", name="train", parent="", inherited="", anew=False)
    return made


def measure(made: Recorder, step: int, value: float = 1.0, non_finite: tuple[str, ...] = ()) -> None:
    made.append("metrics", step=step, values={"loss": value}, non_finite=list(non_finite))


def test_neighbours_are_one_part_and_what_must_be_in_order_is_not(tmp_path):
    made = recorder(tmp_path)
    measure(made, 1)
    made.append("params", values={"a": "1"})
    measure(made, 2)
    made.append("artefact", copy="x/a.txt", folder="")
    made.append("tags", values={"t": "1"})
    made.append("tags", values={"t": "2"})
    made.append("end", status="FINISHED")
    kinds = parts(made.spool)
    assert [type(part.content) for part in kinds] == [Start, Values, Artefact, Values, End]
    assert [part.records for part in kinds] == [1, 3, 1, 2, 1]
    assert kinds[-1].end == made.spool.size()
    assert [item.step for item in kinds[1].content.metrics] == [1, 2]
    assert kinds[3].content.calls() == [[("t", "2")]]


def test_a_torn_line_costs_itself_only(tmp_path, caplog):
    made = recorder(tmp_path)
    measure(made, 1)
    with made.spool.file.open("ab") as file:
        file.write(b'\n{"kind": "metrics", "step": 2, "val')
    assert metrics(made.spool) == [("loss", 1, 1.0)]
    assert not caplog.records, "it may still be being written"
    again = recorder(tmp_path)
    measure(again, 2, 0.5)
    assert metrics(made.spool) == [("loss", 1, 1.0), ("loss", 2, 0.5)]
    assert "torn" in caplog.text


def test_what_an_attempt_repeats_counts_once(tmp_path):
    first = recorder(tmp_path)
    for step in (1, 2, 3):
        measure(first, step, 1.0 / step, ("gate_loss",) if step == 2 else ())
    again = recorder(tmp_path)
    for step in (2, 3, 4):
        measure(again, step, 1.0 / step, ("gate_loss",) if step in (2, 4) else ())
    assert metrics(first.spool) == [("loss", step, 1.0 / step) for step in (1, 2, 3, 4)]
    last = parts(first.spool)[-1].content
    assert last.tags["non_finite.gate_loss"].text == "2"


def test_an_attempt_that_another_followed_is_not_heard(tmp_path):
    paused, current = recorder(tmp_path, "a"), recorder(tmp_path, "b")
    measure(paused, 5, 9.0)
    measure(current, 5, 1.0)
    paused.append("end", status="FAILED")
    measure(current, 6)
    current.append("end", status="FINISHED")
    paused.append("end", status="FAILED")
    assert metrics(paused.spool) == [("loss", 5, 1.0), ("loss", 6, 1.0)]
    assert [part.content.status for part in parts(paused.spool) if isinstance(part.content, End)] == ["FINISHED"]


def test_parameters_are_written_once(tmp_path):
    made = recorder(tmp_path)
    for values in ({"a": "1"}, {"a": "1", "b": "2"}, {"a": "3"}):
        made.append("params", values=values)
    content = parts(made.spool)[-1].content
    assert {name: param.text for name, param in content.params.items()} == {"a": "1", "b": "2"}
    assert {name: tag.text for name, tag in content.tags.items()} == {"changed.a": "3"}


def test_starting_over_with_another_configuration_makes_old_steps_new(tmp_path):
    first = recorder(tmp_path)
    measure(first, 1, 2.0)
    again = Recorder(Spool(tmp_path, "run"))
    again.append("start", name="train", parent="", inherited="", anew=True)
    measure(again, 1, 1.0)
    assert metrics(first.spool) == [("loss", 1, 2.0), ("loss", 1, 1.0)]


@given(cuts=st.lists(st.integers(1, 400), max_size=6), stop=st.integers(0, 30))
def test_however_often_it_is_torn_and_taken_up_every_whole_record_arrives_once_and_in_order(tmp_path_factory, cuts, stop):
    """Kills tear the end of the file; each next attempt repeats from a step back. Delivery may go on from the end of any part."""
    folder = tmp_path_factory.mktemp("spool")
    step, whole = 0, []
    for cut in [*cuts, 0]:
        made = recorder(folder)
        for _ in range(5):
            step += 1
            measure(made, step, float(step))
        made.close()
        size = made.spool.size()
        if cut:  # of this attempt only: what was delivered before cannot be torn any more
            os.truncate(made.spool.file, max(size - cut, size - 300))
        step = max([s for _, s, _ in metrics(made.spool)] or [0])
        step = max(0, step - 1)
        whole = metrics(made.spool)
    assert [s for _, s, _ in whole] == list(range(1, len(whole) + 1))
    ends = [0, *(part.end for part in parts(made.spool))]
    middle = ends[stop % len(ends)]
    before = [(m.name, m.step, m.value) for part in parts(made.spool) if part.end <= middle for m in getattr(part.content, "metrics", [])]
    assert before + metrics(made.spool, middle) == whole


def test_a_file_beside_tells_how_far_it_was_delivered_to_which_store(tmp_path):
    made = recorder(tmp_path)
    state = State("a", "run id", "1", made.spool.size())
    made.spool.keep(state)
    assert made.spool.state("a") == state
    assert made.spool.state("b") == State("b"), "another store has nothing yet"
    assert (made.spool.pending("a"), made.spool.pending("b")) == (0, 1)
    (tmp_path / "run.json").write_text("{")
    assert made.spool.state("a") == State("a")
    assert spools(tmp_path) == [made.spool]


def test_one_at_a_time_delivers_and_the_dead_are_known(tmp_path):
    made = recorder(tmp_path)
    spool = Spool(tmp_path, "run")
    with made.spool.delivering() as ours, spool.delivering() as theirs:
        assert (ours, theirs) == (True, False)
    assert spool.alive()
    assert spool.abandoned(made.attempt) is None
    made.close()
    assert not spool.alive()
    heir = spool.abandoned(made.attempt)
    assert heir is not None
    heir.append("end", status="KILLED")
    heir.close()
    assert [part.content.status for part in parts(spool) if isinstance(part.content, End)] == ["KILLED"]


def test_locks_are_asked_for_as_nfs4_gives_them(tmp_path, nfs4):
    made = recorder(tmp_path)
    assert made.spool.alive()
    assert made.spool.abandoned(made.attempt) is None
    made.close()
    assert not made.spool.alive()
    heir = made.spool.abandoned(made.attempt)
    assert heir is not None
    heir.close()
    with made.spool.delivering() as ours:
        assert ours
    assert {fcntl.LOCK_SH, fcntl.LOCK_EX} == set(nfs4)


def test_a_run_of_another_user_is_left_to_that_user(tmp_path, monkeypatch):
    recorder(tmp_path).close()
    (tmp_path / "run.jsonl").chmod(0o444)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    if user == 0:  # who may do everything
        os.seteuid(65534)
    try:
        assert Spool(Path(), "run").alive()
    finally:
        os.seteuid(user)


def test_a_metric_keeps_its_own_time(tmp_path):
    made = recorder(tmp_path)
    made.append("metrics", step=1, values={"loss": 0.1}, non_finite=[], ms=1234)
    assert parts(made.spool)[-1].content.metrics == [Metric("loss", 0.1, 1234, 1)]
