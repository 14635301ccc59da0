"""Folders into an object store: whole or not at all, and nothing sent twice."""

import hashlib
import json
import os
import signal
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.storage.trees import FILES, tree, write
from tts.errors import CannotWriteError, DataError, UsageError
from tts.storage import entries, exists, fetch, publish, read_bytes, remove, write_bytes
from tts.storage.place import Place
from tts.storage.s3 import client
from tts.storage.upload import PART, SMALL


def test_there_and_back(bucket, tmp_path):
    source = write(tmp_path / "source", FILES)
    publish(source, f"{bucket.uri}/some folder/features")
    manifest = json.loads(bucket.get("some folder/features/.manifest.json"))
    assert [file["name"] for file in manifest["files"]] == sorted(FILES)
    assert {file["name"]: file["sha256"] for file in manifest["files"]} == {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    assert sorted(bucket.keys()) == sorted(f"some folder/features/{name}" for name in [*FILES, ".manifest.json"])
    assert fetch(f"{bucket.uri}/some folder/features/", tmp_path / "back") == tmp_path / "back"
    assert tree(tmp_path / "back") == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "source"]


names = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cc"]), min_size=1, max_size=8).filter(
        lambda text: text not in (".", "..") and not text.startswith(".")
    ),
    min_size=1,
    max_size=3,
).map("/".join)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(versions=st.lists(st.dictionaries(names, st.binary(max_size=20), max_size=4), min_size=1, max_size=3))
def test_any_folder_after_any_other(bucket, tmp_path_factory, versions):
    """What is fetched is the last version, whatever was there before."""
    place = f"{bucket.uri}/{tmp_path_factory.mktemp('x').name}"
    for version in versions:
        files = {name: data for name, data in version.items() if not any(other.startswith(f"{name}/") for other in version)}
        folder = tmp_path_factory.mktemp("folder")
        publish(write(folder / "in", files), place)
        assert tree(fetch(place, folder / "out")) == files
        assert {entry.name: entry.size for entry in entries(place)} == {name: len(data) for name, data in files.items()} | {
            ".manifest.json": len(read_bytes(f"{place}/.manifest.json"))
        }


def test_a_large_file_goes_in_parts(bucket, tmp_path):
    source = write(tmp_path / "source", {"large": os.urandom(PART + SMALL), "small": b"s"})
    publish(source, f"{bucket.uri}/p")
    assert bucket.client.head_object(Bucket=bucket.name, Key="p/large")["ETag"].endswith('-2"')
    write(source, {"large": os.urandom(PART + SMALL)})
    publish(source, f"{bucket.uri}/p")
    assert tree(fetch(f"{bucket.uri}/p", tmp_path / "back")) == tree(source)
    assert bucket.keys("p/.staged") == []


def test_only_what_changed_is_sent(bucket, watched, tmp_path):
    source = write(tmp_path / "source", FILES)
    first = publish(source, f"{bucket.uri}/p")
    watched.requests.clear()
    assert publish(source, f"{bucket.uri}/p") == first
    assert [request for request in watched.requests if not request.startswith(("GET", "HEAD"))] == []
    write(source, {"a": b"another", "new": b"n"})
    (source / "empty").unlink()
    assert publish(source, f"{bucket.uri}/p") != first
    assert tree(fetch(f"{bucket.uri}/p", tmp_path / "back")) == tree(source)
    sent = [request for request in watched.requests if request.startswith("PUT") and "manifest" not in request and "publishing" not in request]
    assert len([request for request in sent if request.endswith("/p/new")]) == 1
    assert not [request for request in sent if "deep" in request or "spaces" in request]
    assert sorted(bucket.keys()) == sorted(f"p/{name}" for name in [*tree(source), ".manifest.json"])


def test_what_was_lost_behind_our_back_is_sent_again(bucket, tmp_path):
    source = write(tmp_path / "source", FILES)
    publish(source, f"{bucket.uri}/p")
    bucket.client.delete_object(Bucket=bucket.name, Key="p/a")
    with pytest.raises(DataError, match=r"s3://.*/p/a is gone"):
        fetch(f"{bucket.uri}/p", tmp_path / "back")
    publish(source, f"{bucket.uri}/p")
    assert tree(fetch(f"{bucket.uri}/p", tmp_path / "back")) == FILES


def _publish_in_a_child(source, place, request):
    """Publishes in a process that is killed when it is about to send its request of that number; whether it came to that."""
    child = os.fork()
    if child == 0:
        seen, lock = [], threading.Lock()

        def count(**_):
            with lock:
                seen.append(1)
                if len(seen) == request:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            client(Place.of(place)).meta.events.register("before-send.s3", count)
            publish(source, place)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_a_kill_at_any_request_leaves_the_old_or_the_new(bucket, tmp_path):
    """And the next publication leaves the new one, and nothing else."""
    old, new = {"same": b"s", "run.json": b"1", "gone": b"g"}, {"same": b"s", "run.json": b"2", "came": b"c"}
    before, after = write(tmp_path / "old", old), write(tmp_path / "new", new)
    seen, number = set(), 0
    while True:
        number += 1
        place = f"{bucket.uri}/{number}"
        publish(before, place)
        killed = _publish_in_a_child(after, place, number)
        found = tree(fetch(place, tmp_path / "found"))
        assert found in (old, new)
        seen.add(found == new)
        publish(after, place)
        assert tree(fetch(place, tmp_path / "found")) == new
        assert sorted(bucket.keys(f"{number}/")) == sorted(f"{number}/{name}" for name in [*new, ".manifest.json"])
        if not killed:
            break
    assert number > 12, "there were kills"
    assert seen == {True, False}


def test_a_first_publication_that_was_killed_is_not_taken_for_whole(bucket, watched, tmp_path):
    files = {"a": b"1", "b": b"2", "empty": b""}
    source = write(tmp_path / "source", files)
    number, refused = 0, 0
    while True:
        number += 1
        place = f"{bucket.uri}/first-{number}"
        if not _publish_in_a_child(source, place, number):
            break
        if not exists(place):
            continue
        there = bucket.keys(f"first-{number}/")
        if f"first-{number}/.manifest.json" in there:
            assert tree(fetch(place, tmp_path / "found")) == files
        else:
            refused += 1
            with pytest.raises(DataError, match="is not whole; publish it"):
                fetch(place, tmp_path / "found")
        watched.requests.clear()
        publish(source, place)
        sent = [request for request in watched.requests if request.startswith("PUT")]
        for name in files:
            assert f"first-{number}/{name}" not in there or f"PUT /{bucket.name}/first-{number}/{name}" not in sent, "it goes on where it was"
        assert tree(fetch(place, tmp_path / "found")) == files
        assert sorted(bucket.keys(f"first-{number}/")) == sorted(f"first-{number}/{name}" for name in [*files, ".manifest.json"])
    assert refused > 3


def test_parts_that_a_kill_left_are_removed(bucket, tmp_path):
    source = write(tmp_path / "source", {"large": os.urandom(2 * PART)})
    left = 0
    for number in (7, 8):  # while parts are sent
        assert _publish_in_a_child(source, f"{bucket.uri}/p-{number}", number)
        left += len(bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", []))
        publish(source, f"{bucket.uri}/p-{number}")
        assert bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", []) == []
    assert left > 0, "some kills left parts"


def test_what_others_keep_there_stays(bucket, tmp_path):
    bucket.put("p/theirs", b"t")
    publish(write(tmp_path / "one", {"a": b"1"}), f"{bucket.uri}/p")
    publish(write(tmp_path / "two", {"b": b"2"}), f"{bucket.uri}/p")
    publish(write(tmp_path / "inner", {"c": b"3"}), f"{bucket.uri}/p/inner")
    publish(write(tmp_path / "two", {"b": b"4"}), f"{bucket.uri}/p")
    assert tree(fetch(f"{bucket.uri}/p", tmp_path / "back")) == {"b": b"4"}
    assert tree(fetch(f"{bucket.uri}/p/inner", tmp_path / "back")) == {"c": b"3"}
    assert bucket.get("p/theirs") == b"t"


def test_another_ones_publication_is_not_overwritten(bucket, tmp_path):
    place = f"{bucket.uri}/p"
    mine = publish(write(tmp_path / "mine", {"a": b"1"}), place, over="")
    publish(write(tmp_path / "theirs", {"a": b"2"}), place)
    with pytest.raises(DataError, match="published by another process meanwhile"):
        publish(write(tmp_path / "mine", {"a": b"3"}), place, over=mine)
    assert tree(fetch(place, tmp_path / "back")) == {"a": b"2"}


def test_links_and_devices_are_refused_before_anything_is_sent(bucket, tmp_path):
    source = write(tmp_path / "source", FILES)
    (source / "deep" / "link").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match=r"deep/link is a link"):
        publish(source, f"{bucket.uri}/p")
    (source / "deep" / "link").unlink()
    (source / "folder").symlink_to(tmp_path)
    with pytest.raises(UsageError, match=r"source/folder is a link"):
        publish(source, f"{bucket.uri}/p")
    (source / "folder").unlink()
    os.mkfifo(source / "pipe")
    with pytest.raises(UsageError, match=r"pipe is no regular file"):
        publish(source, f"{bucket.uri}/p")
    assert bucket.keys() == []


def test_what_is_half_written_stays_here(bucket, tmp_path):
    source = write(tmp_path / "source", {"a": b"1", ".b.x.partial": b"half", ".c.partial/d": b"half"})
    publish(source, f"{bucket.uri}/p")
    assert bucket.keys() == ["p/.manifest.json", "p/a"]


def test_places_that_cannot_take_a_folder(bucket, tmp_path):
    source = write(tmp_path / "source", {"a": b"1"})
    bucket.put("taken", b"t")
    with pytest.raises(CannotWriteError, match="an object of that name is in the way"):
        publish(source, f"{bucket.uri}/taken")
    with pytest.raises(UsageError, match="whole bucket"):
        publish(source, bucket.uri)
    with pytest.raises(DataError, match="does not exist"):
        publish(tmp_path / "nothing", f"{bucket.uri}/p")
    with pytest.raises(DataError, match="is a file, not a folder"):
        publish(source / "a", f"{bucket.uri}/p")
    with pytest.raises(UsageError, match=r"\.staged"):
        publish(write(tmp_path / "staged", {".staged/a": b"1"}), f"{bucket.uri}/p")
    assert bucket.keys() == ["taken"]


def test_a_file_that_is_written_to_meanwhile_is_published_as_it_was_read(bucket, watched, tmp_path):
    """A log that grows between the look at it and its upload: manifest and object say the same."""
    source = write(tmp_path / "source", {"log": b"one\n", "other": b"o"})

    def grow(request):
        if request.endswith("/p/.publishing.json") and request.startswith("PUT"):
            with (source / "log").open("ab") as log:
                log.write(b"two\n")

    watched.before = grow
    publish(source, f"{bucket.uri}/p")
    assert tree(fetch(f"{bucket.uri}/p", tmp_path / "back")) == {"log": b"one\ntwo\n", "other": b"o"}


def test_a_large_file_that_always_changes_is_refused(bucket, watched, tmp_path):
    source = write(tmp_path / "source", {"large": bytes(SMALL + 1)})

    def change(request):
        if "/p/large" in request and "partNumber" in request:
            write(source, {"large": os.urandom(SMALL + 1)})

    watched.before = change
    with pytest.raises(DataError, match="large changes while it is published, time and again"):
        publish(source, f"{bucket.uri}/p")
    with pytest.raises(DataError, match="is not whole"):
        fetch(f"{bucket.uri}/p", tmp_path / "back")


def test_single_objects(bucket, tmp_path):
    for place in (f"{bucket.uri}/deep/one", str(tmp_path / "deep" / "one")):
        assert not exists(place)
        write_bytes(place, b"content")
        assert exists(place)
        assert read_bytes(place) == b"content"
        assert [(entry.name, entry.size) for entry in entries(place.rpartition("/")[0])] == [("one", 7)]
        remove(place)
        remove(place)
        assert not exists(place)
        with pytest.raises(DataError, match="does not exist"):
            read_bytes(place)


def test_removing_takes_all_below_and_nothing_beside(bucket, tmp_path):
    publish(write(tmp_path / "a", FILES), f"{bucket.uri}/runs/1")
    publish(write(tmp_path / "a", FILES), f"{bucket.uri}/runs/1/inner")
    publish(write(tmp_path / "a", FILES), f"{bucket.uri}/runs/10")
    remove(f"{bucket.uri}/runs/1")
    assert not exists(f"{bucket.uri}/runs/1")
    assert tree(fetch(f"{bucket.uri}/runs/10", tmp_path / "back")) == FILES
    with pytest.raises(UsageError, match="whole bucket"):
        remove(bucket.uri)


def test_a_folder_on_this_machine_is_published_and_fetched_the_same_way(tmp_path):
    source = write(tmp_path / "source", FILES)
    publish(source, tmp_path / "out")
    publish(write(tmp_path / "other", {"b": b"2"}), tmp_path / "out")
    assert tree(tmp_path / "out") == {"b": b"2"}
    publish(source, tmp_path / "out")
    assert tree(fetch(tmp_path / "out", tmp_path / "back")) == FILES
