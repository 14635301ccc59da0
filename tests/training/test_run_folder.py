import pytest

from tts.errors import CannotWriteError, DataError, UsageError
from tts.training.run_folder import RunState, Totals, clear_after, holding, prepare_run, read_state, write_state


def test_state_survives_its_file(tmp_path):
    state = RunState(state="preempted", step=7, fingerprint="ab", language="ru", totals=Totals(skipped_updates=2, seconds=1.5))
    assert read_state(tmp_path) is None
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state


@pytest.mark.parametrize("text", ["", "[]", '{"state": "asleep"}'])
def test_a_damaged_state_is_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match=r"run\.json does not hold the state of a run"):
        read_state(tmp_path)


@pytest.mark.parametrize("name", ["features.json", "study.json", "metadata.csv", "manifest.jsonl"])
def test_the_folder_of_another_stage_is_left_alone(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match=f"holds {name}, so it is not a run folder"):
        prepare_run(tmp_path)


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    with holding(tmp_path / "run"), pytest.raises(UsageError, match="another process is training"), holding(tmp_path / "run"):
        pass
    with holding(tmp_path / "run"):
        pass


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(CannotWriteError, match="a file is in the way"):
        prepare_run(tmp_path / "run")


def test_a_folder_that_cannot_be_written_to(read_only_folder):
    with pytest.raises(CannotWriteError, match="no permission"):
        prepare_run(read_only_folder / "run")
    with pytest.raises(CannotWriteError, match="no permission"):
        prepare_run(read_only_folder)
    assert list(read_only_folder.iterdir()) == []


def test_clearing_removes_the_future_and_the_half_written_and_nothing_else(tmp_path):
    kept = [
        "run.json",
        "config.json",
        "notes.txt",
        "snapshots/step-00000004.npz",
        "anomalies/step-00000003.json",
        "anomalies/step-00000003.pt",
        "checkpoints/step-00000009.pt",
    ]
    gone = [
        "snapshots/step-00000005.npz",
        "anomalies/step-00000012.json",
        "anomalies/step-00000012.pt",
        ".run.json.x1y2z3.partial",
        ".metrics.jsonl.abcdef.partial",
        "checkpoints/.step-00000008.pt.q1w2e3.partial",
        "checkpoints/.index.json.q1w2e3.partial",
        "snapshots/.step-00000004.npz.q1w2e3.partial",
    ]
    for name in kept + gone:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    clear_after(tmp_path, 4)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
