"""Files and folders appear whole or not at all."""

import errno
import os
import resource
import signal
import stat
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.errors import CannotWriteError
from tts.storage import OLD_AFTER, PARTIAL, building, clear_partial, prepare_folder, replaceable, write_text, writing


def _content(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(content=st.binary(max_size=5000))
def test_what_is_written_is_there(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("storage") / "deep" / "file"
    with writing(path) as file:
        file.write(content)
    assert path.read_bytes() == content
    assert _content(path.parent) == ["file"]


def test_others_may_read_it(tmp_path):
    write_text(tmp_path / "file", "text\n")
    with building(tmp_path / "folder"):
        pass
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), writing(path) as file:
        file.write(b"new, but not whole")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert _content(tmp_path) == ["file"]


def test_a_folder_replaces_the_old_one_when_it_is_whole(tmp_path):
    target = tmp_path / "folder"
    with building(target) as folder:
        (folder / "a").write_text("1")
    assert _content(target) == ["a"]
    with pytest.raises(ValueError, match="bug"), building(target) as folder:
        (folder / "b").write_text("2")
        raise ValueError("bug")
    assert _content(target) == ["a"]
    with building(target) as folder:
        (folder / "c").write_text("3")
    assert _content(target) == ["c"]
    assert _content(tmp_path) == ["folder"]


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "disk" / "real" / "old").touch()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    with building(tmp_path / "link") as folder:
        (folder / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert _content(tmp_path / "disk" / "real") == ["new"]
    assert _content(tmp_path / "disk") == ["real"]


@pytest.mark.parametrize("name", [".", "..", "inner/.."])
def test_the_current_folder_is_refused_before_work(tmp_path, monkeypatch, name):
    (tmp_path / "here" / "inner").mkdir(parents=True)
    (tmp_path / "here" / "kept").touch()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(CannotWriteError, match="name a folder inside it"), building(Path(name)):
        raise AssertionError("worked in vain")
    assert _content(tmp_path / "here") == ["inner", "kept"]
    assert _content(tmp_path) == ["here"]


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="a mount point that is everywhere on Linux")
def test_a_mount_point_is_refused_before_work():
    with pytest.raises(CannotWriteError, match="mount point"), building(Path("/proc")):
        raise AssertionError("worked in vain")


def test_a_link_to_itself_and_a_file_are_refused_before_work(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    for name in ("loop", "file"):
        with pytest.raises(CannotWriteError, match="a file is in the way"), building(tmp_path / name):
            raise AssertionError("worked in vain")


def test_a_kill_while_replacing_loses_nothing(tmp_path):
    """Killed at each rename and at the deletion in turn: the folder holds all of the old or all of the new, and the next build tidies up."""
    for last in range(4):
        place = tmp_path / str(last) / "folder"
        place.mkdir(parents=True)
        (place / "old").touch()
        child = os.fork()
        if child == 0:
            _at_change(last, lambda: os.kill(os.getpid(), signal.SIGKILL))
            with building(place) as folder:
                (folder / "new").touch()
            os._exit(0)
        os.waitpid(child, 0)
        assert _content(replaceable(place)) == (["old"] if last < 2 else ["new"])
        with building(place) as folder:
            (folder / "newer").touch()
        assert _content(place) == ["newer"]
        assert not (place.parent / f".folder{PARTIAL}").exists()


def test_an_error_between_the_renames_puts_the_old_folder_back(tmp_path):
    target = tmp_path / "folder"
    with building(target) as folder:
        (folder / "old").touch()
    child = os.fork()
    if child == 0:
        _at_change(1, _refuse)
        try:
            with building(target) as folder:
                (folder / "new").touch()
        except CannotWriteError:
            os._exit(CannotWriteError.exit_code)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == CannotWriteError.exit_code
    assert _content(target) == ["old"]
    assert _content(tmp_path) == ["folder"]


def _refuse():
    raise OSError(errno.EBUSY, "busy")


def _at_change(number, act):
    """Acts when this process is about to rename something or remove a folder for the time `number`, counted from 0."""
    seen = []

    def audit(event, arguments):
        if event in ("os.rename", "shutil.rmtree"):
            seen.append(event)
            if len(seen) == number + 1:
                act()

    sys.addaudithook(audit)


@pytest.mark.parametrize(("number", "remedy"), [(errno.EBUSY, "name a folder inside it"), (errno.ENOTEMPTY, "another process writes there")])
def test_what_the_system_holds_is_named(tmp_path, number, remedy):
    with pytest.raises(CannotWriteError, match=remedy), building(tmp_path / "folder"):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_what_the_disk_refuses_is_said_in_one_line(tmp_path, number):
    with pytest.raises(CannotWriteError) as error, building(tmp_path / "folder"):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "folder") in str(error.value)
    assert "choose another folder" in str(error.value)
    assert error.value.exit_code == 73
    assert _content(tmp_path) == []


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(ConnectionResetError), writing(tmp_path / "file"):
        raise ConnectionResetError(errno.ECONNRESET, "a socket, not a disk")


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWriteError, match="a file is in the way"):
        write_text(tmp_path / "file" / "below", "text")
    with pytest.raises(CannotWriteError, match="a file is in the way"):
        prepare_folder(tmp_path / "file")


def test_a_disk_that_fills_up_leaves_nothing(tmp_path):
    """The kernel refuses to write past a limit on file size: what a full disk does, without needing one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(CannotWriteError), writing(tmp_path / "file") as file:
            for _ in range(100):
                file.write(bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert _content(tmp_path) == []


def test_a_folder_is_proved_before_work_begins(tmp_path):
    assert prepare_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert _content(tmp_path / "a" / "b") == []


def test_what_a_killed_process_left_half_written_is_cleared(tmp_path):
    child = os.fork()
    if child == 0:
        with writing(tmp_path / "file") as file, building(tmp_path / "folder") as folder:
            file.write(b"half")
            (folder / "part").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (tmp_path / "kept").write_text("whole")
    left = _content(tmp_path)
    assert len(left) == 3
    assert all(name.endswith(PARTIAL) for name in left if name != "kept")
    clear_partial(tmp_path)
    assert _content(tmp_path) == ["kept"]


def test_a_folder_that_was_abandoned_long_ago_goes_when_its_name_is_built_again(tmp_path):
    for age in (OLD_AFTER / 2, OLD_AFTER * 2):
        left = tmp_path / f".folder.{age:.0f}{PARTIAL}"
        left.mkdir()
        (left / "mels.npy").write_text("half")
        for path in (left / "mels.npy", left):
            os.utime(path, (time.time() - age,) * 2)
    with building(tmp_path / "folder"):
        pass
    assert _content(tmp_path) == [f".folder.{OLD_AFTER / 2:.0f}{PARTIAL}", "folder"]
