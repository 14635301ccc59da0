import psutil
import pytest

from tts.errors import CannotWriteError, DataError
from tts.tuning.launch import Ended, LocalLauncher, Task, Workers


def running():
    """The workers among this process's children; one that has ended shows no arguments any more."""
    children = psutil.Process().children()
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE and "tts.tuning" in child.cmdline()]


def test_a_worker_that_ends_is_noticed_with_its_exit_code_and_last_words(tmp_path, until):
    launcher = LocalLauncher(tmp_path / "workers")
    launcher.start(Task(str(tmp_path / "features"), f"sqlite:///{tmp_path}/study.db", "voices"), 1)
    assert launcher.poll() == Workers(1, ())

    workers = until(lambda: (now := launcher.poll()).alive == 0 and now)

    (ended,) = workers.ended
    assert (ended.worker, ended.code) == ("worker 0", DataError.exit_code)
    assert f"study database {tmp_path}/study.db does not exist" in str(ended)
    launcher.stop()
    launcher.stop()


def test_a_worker_is_asked_to_stop_and_its_database_is_in_no_argument_or_environment(tmp_path):
    launcher = LocalLauncher(tmp_path / "workers")
    launcher.start(Task(str(tmp_path), "postgresql://tuner:secret@127.0.0.1:1/studies", "voices"), 1)
    (process,) = running()

    shown = " ".join(process.cmdline()) + str(process.environ())
    launcher.stop()

    assert "secret" not in shown
    assert not process.is_running()
    assert "secret" not in (tmp_path / "workers" / "0.log").read_text()


def test_each_worker_sees_devices_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,GPU-7f,0,2")
    launcher = LocalLauncher(tmp_path / "workers", devices_each=2)
    launcher.start(Task(str(tmp_path), "sqlite:///x", "voices"), 3)

    seen = sorted(process.environ()["CUDA_VISIBLE_DEVICES"] for process in running())
    launcher.stop()

    assert seen == ["3,1", "3,1", "GPU-7f,0"]


def test_a_folder_that_cannot_hold_logs_is_named(tmp_path):
    (tmp_path / "workers").write_text("")

    with pytest.raises(CannotWriteError, match="a file is in the way"):
        LocalLauncher(tmp_path / "workers").start(Task(str(tmp_path), "sqlite:///x", "voices"), 1)


def test_how_a_worker_ended_is_one_line():
    assert str(Ended("worker 1", -9, "")) == "worker 1 was killed by SIGKILL"
    assert str(Ended("worker 1", 65, "first\nlast")) == "worker 1 ended with exit code 65: last"
    assert str(Ended("worker 1", 75, "", "was evicted")) == "worker 1 was evicted"
    assert str(Ended("worker 1", -9, "first\nlast", "was killed for its memory")) == "worker 1 was killed for its memory: last"


def test_a_killed_worker_is_started_again_and_no_more_often_than_allowed(tmp_path, until):
    launcher = LocalLauncher(tmp_path / "workers", restarts=1)
    launcher.start(Task(str(tmp_path), f"sqlite:///{tmp_path}/study.db", "voices"), 1)

    def kill():
        (worker,) = running()
        worker.kill()
        until(lambda: worker.status() == psutil.STATUS_ZOMBIE)

    kill()
    assert launcher.poll() == Workers(1, ())
    kill()
    assert [str(ended) for ended in launcher.poll().ended] == ["worker 0 was killed by SIGKILL"]
    launcher.stop()
