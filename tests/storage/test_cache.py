"""What is fetched once on a machine, for all of its processes."""

import os
import signal
import stat
import time
from pathlib import Path

import pytest

from tests.storage.trees import FILES, tree, write
from tts.errors import CannotWriteError, DataError
from tts.storage import cached, cached_file, local, publish
from tts.storage.cache import KEPT_DAYS, default_cache


@pytest.fixture
def place(bucket, tmp_path):
    publish(write(tmp_path / "source", FILES), f"{bucket.uri}/some/features")
    return f"{bucket.uri}/some/features"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def _child(act):
    """A process that does it; its exit code is 0 if no error came of it."""
    child = os.fork()
    if child:
        return child
    try:
        act()
        os._exit(0)
    finally:
        os._exit(1)


def test_sixteen_processes_at_once_fetch_once(place, watched, cache):
    watched.requests.clear()
    gate, opened = os.pipe()

    def act():
        os.read(gate, 1)
        (cache.parent / f"{os.getpid()}.found").write_text(str(cached(place, cache)))

    children = [_child(act) for _ in range(16)]
    os.write(opened, b"." * 16)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 16
    found = {(cache.parent / f"{child}.found").read_text() for child in children}
    assert len(found) == 1
    assert tree(Path(found.pop())) == FILES
    assert [watched.gets(f"some/features/{name}") for name in ("a", "empty", ".hidden", "deep/er/b.bin")] == [1, 1, 1, 1]
    assert watched.gets("some/features/.manifest.json") == 16


def test_an_entry_belongs_to_one_content(place, cache, tmp_path):
    first = cached(place, cache)
    assert cached(f"{place}/", cache) == first
    source = write(tmp_path / "source", {"a": b"new"})
    publish(source, place)
    second = cached(place, cache)
    assert (tree(first)["a"], tree(second)["a"]) == (b"1", b"new")
    publish(write(tmp_path / "source", {"a": b"1"}), place)
    assert cached(place, cache) == first
    assert "features-" in str(first)


def test_it_is_for_reading(place, cache):
    entry = cached(place, cache)
    assert {stat.S_IMODE(path.stat().st_mode) for path in entry.rglob("*") if path.is_file()} == {0o444}


def test_an_entry_that_lost_something_is_fetched_again(place, cache):
    """As after a power failure, when names are there and contents are not."""
    entry = cached(place, cache)
    (entry / "a").chmod(0o644)
    (entry / "a").write_bytes(b"")
    assert tree(cached(place, cache)) == FILES
    (entry / "deep" / "er" / "b.bin").unlink()
    assert tree(cached(place, cache)) == FILES


def test_a_killed_fetch_leaves_no_entry_and_is_gone_on_with(place, watched, cache):
    children = []

    def kill(request):
        if request.endswith("/features/deep/er/b.bin") and children:
            os.kill(children.pop(), signal.SIGKILL)

    watched.before = kill
    gate, opened = os.pipe()
    child = _child(lambda: (os.read(gate, 1), cached(place, cache)))
    children.append(child)
    os.write(opened, b".")
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not list(cache.glob("*/files"))
    assert tree(cached(place, cache)) == FILES


def test_what_another_program_put_there_is_known_by_its_etags(bucket, cache):
    bucket.put("kfp/a", b"1")
    first = cached(f"minio://{bucket.name}/kfp", cache)
    assert cached(f"minio://{bucket.name}/kfp", cache) == first
    bucket.put("kfp/a", b"2")
    assert tree(cached(f"minio://{bucket.name}/kfp", cache)) == {"a": b"2"}
    assert tree(first) == {"a": b"1"}


def test_a_file(bucket, cache):
    bucket.put("deep/b\u00e4st of.yaml", b"a: 1\n")
    path = cached_file(f"{bucket.uri}/deep/b\u00e4st of.yaml", cache)
    assert (path.name, path.read_bytes()) == ("b\u00e4st of.yaml", b"a: 1\n")
    assert cached_file(f"{bucket.uri}/deep/b\u00e4st of.yaml", cache) == path


def test_what_nobody_asked_for_in_a_long_time_goes(bucket, place, cache, tmp_path):
    old, used = cached(place, cache), cached_file(f"{place}/a", cache)
    long_ago = time.time() - (KEPT_DAYS + 1) * 86400
    for entry in (old, used):
        os.utime(entry.parent, (long_ago, long_ago))
    assert cached_file(f"{place}/a", cache) == used
    assert old.is_dir()
    bucket.put("another", b"x")
    cached_file(f"{bucket.uri}/another", cache)
    assert used.is_file()
    assert not old.exists()


def test_local_is_what_is_here(place, bucket, tmp_path):
    assert local(tmp_path) == tmp_path
    assert local(str(tmp_path / "nothing")) == tmp_path / "nothing"
    assert local(place).is_relative_to(default_cache())
    assert tree(local(place, tmp_path / "other")) == FILES
    assert default_cache() == Path(os.environ["TTS_CACHE"])
    with pytest.raises(DataError):
        local(f"{bucket.uri}/nothing")


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    for name in ("TTS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert default_cache() == Path("/home/anna/.cache/tts")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_cache() == Path("/caches/tts")
    monkeypatch.setenv("TTS_CACHE", "/mine")
    assert default_cache() == Path("/mine")


def test_a_cache_that_cannot_be_written(place, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CannotWriteError, match="a file is in the way"):
        cached(place, tmp_path / "file")
