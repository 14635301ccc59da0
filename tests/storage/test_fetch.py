"""Out of an object store: whole or not at all, checked, and gone on with after a kill."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.storage.trees import FILES, tree, write
from tts.errors import CannotWriteError, DataError, ServiceUnavailableError
from tts.progress import Silent
from tts.storage import entries, fetch, fetch_file, publish
from tts.storage.download import PIECE

LARGE = PIECE + 10_000


@pytest.fixture
def place(bucket, tmp_path):
    publish(write(tmp_path / "source", FILES), f"{bucket.uri}/p")
    return f"{bucket.uri}/p"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "target" / "folder"


def _left(target):
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def test_what_another_program_put_there_is_fetched_by_its_listing(bucket, target):
    for name, content in FILES.items():
        bucket.put(f"kfp/{name}", content)
    bucket.put("kfp/deep/", b"")
    bucket.put("kfp-beside", b"not this")
    assert tree(fetch(f"{bucket.uri.replace('s3', 'minio')}/kfp", target)) == FILES
    assert _left(target) == ["folder"]


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "a//b", "/etc/outside", "./a"])
@pytest.mark.parametrize("published", [False, True])
def test_names_that_lead_out_of_the_folder_are_refused(bucket, target, key, published):
    if published:
        bucket.put("p/.manifest.json", b'{"format": 1, "files": [{"name": "%s", "size": 1, "sha256": "%s"}]}' % (key.encode(), b"0" * 64))
    else:
        bucket.put("p/fine", b"f")
        bucket.put(f"p/{key}", b"x")
    with pytest.raises(DataError, match="cannot be the name of a file below a folder"):
        fetch(f"{bucket.uri}/p", target)
    assert _left(target) == []


def test_what_is_not_there(bucket, target, tmp_path):
    bucket.put("object", b"o")
    bucket.put("folder/object", b"o")
    for act, said in (
        (lambda: fetch(f"{bucket.uri}/nothing", target), "does not exist: there is no object below it"),
        (lambda: fetch(f"{bucket.uri}/object", target), "is one object, not a folder"),
        (lambda: fetch_file(f"{bucket.uri}/nothing", target), "does not exist"),
        (lambda: fetch_file(f"{bucket.uri}/folder", target), "is a folder of objects, not one"),
        (lambda: fetch("s3://there-is-no-such-bucket/p", target), "bucket there-is-no-such-bucket does not exist in object store http://127.0.0.1"),
        (lambda: fetch(tmp_path / "nothing", target), "does not exist"),
    ):
        with pytest.raises(DataError, match=said):
            act()
    assert _left(target) == []


def test_an_object_that_is_also_a_folder(bucket, target):
    bucket.put("p/a", b"1")
    bucket.put("p/a/b", b"2")
    with pytest.raises(DataError, match="a folder cannot hold both"):
        fetch(f"{bucket.uri}/p", target)


@pytest.mark.parametrize(
    "content", [b"no JSON", b"{}", b'{"format": 2, "files": []}', b'{"format": 1, "files": [{"name": "a", "size": -1, "sha256": "0"}]}']
)
def test_a_manifest_that_is_none(bucket, target, content):
    bucket.put("p/.manifest.json", content)
    with pytest.raises(DataError, match=r"p/\.manifest\.json is no manifest of a published folder"):
        fetch(f"{bucket.uri}/p", target)


def test_damage_is_found(bucket, place, target):
    bucket.put("p/deep/er/b.bin", bytes(2560))
    with pytest.raises(DataError, match=r"p/deep/er/b\.bin is not what the manifest says .*; it is damaged") as error:
        fetch(place, target)
    assert error.value.exit_code == 65
    assert not target.exists()
    bucket.put("p/deep/er/b.bin", FILES["deep/er/b.bin"])
    assert tree(fetch(place, target)) == FILES
    assert _left(target) == ["folder"]


def test_an_object_that_was_cut_short(bucket, place, target):
    bucket.put("p/deep/er/b.bin", b"short")
    with pytest.raises(DataError, match="2560 were expected"):
        fetch(place, target)


def test_a_folder_that_is_there_is_replaced_when_the_new_one_is_whole(bucket, place, target):
    write(target, {"old": b"o"})
    bucket.put("p/a", b"damaged")
    with pytest.raises(DataError):
        fetch(place, target)
    assert tree(target) == {"old": b"o"}
    bucket.put("p/a", FILES["a"])
    assert tree(fetch(place, target)) == FILES


def test_a_place_that_is_replaced_while_it_is_fetched(bucket, watched, place, target, tmp_path):
    """The new files, all of them: the old ones vanish after the manifest was read."""
    new = {**FILES, "a": b"22", "deep/er/b.bin": b"new", "came": b"c"}
    del new["empty"]
    source = write(tmp_path / "new", new)
    published = []

    def replace(request):
        if request.startswith("GET ") and request.endswith("/p/a") and not published:
            published.append(1)
            publish(source, place)

    watched.before = replace
    assert tree(fetch(place, target)) == new
    assert watched.gets("p/.manifest.json") >= 2


def test_a_listed_object_that_is_replaced_between_its_pieces(bucket, watched, target):
    """Without a manifest pieces of two versions must not meet in one file."""
    old, new = os.urandom(LARGE), os.urandom(LARGE)
    bucket.put("kfp/large", old)
    asked = []

    def replace(request):
        if request.startswith("GET ") and request.endswith("/kfp/large"):
            asked.append(1)
            if len(asked) == 2:
                bucket.put("kfp/large", new)

    watched.before = replace
    assert tree(fetch(f"{bucket.uri}/kfp", target)) == {"large": new}


def test_connections_that_are_cut_off_are_gone_on_with(bucket, watched, target, tmp_path):
    content = os.urandom(5 * 2**20)
    publish(write(tmp_path / "source", {"large": content}), f"{bucket.uri}/p")
    watched.cut_after = lambda request: 2**20 + 5 if request.endswith("/p/large") else None
    assert (fetch(f"{bucket.uri}/p", target) / "large").read_bytes() == content
    assert watched.gets("p/large") == 5
    assert watched.body_bytes < 6 * 2**20, "only what was missing came again"


def test_a_store_that_always_cuts_off_is_given_up(bucket, watched, target, tmp_path):
    publish(write(tmp_path / "source", {"file": b"1234567890"}), f"{bucket.uri}/p")
    watched.cut_after = lambda request: 0 if request.endswith("/p/file") else None
    with pytest.raises(ServiceUnavailableError, match=rf"object store {watched.uri} \(bucket {bucket.name}\) is out of reach after retries") as error:
        fetch(f"{bucket.uri}/p", target)
    assert error.value.exit_code == 69
    assert not target.exists()


def test_a_kill_costs_only_what_was_under_way(bucket, watched, target, tmp_path):
    files = {"large": os.urandom(LARGE), **{f"small-{number}": os.urandom(100) for number in range(20)}}
    publish(write(tmp_path / "source", files), f"{bucket.uri}/p")
    child = os.fork()
    if child == 0:
        program = "import sys; from pathlib import Path; from tts.storage import fetch; fetch(sys.argv[1], Path(sys.argv[2]))"
        os.execv(sys.executable, [sys.executable, "-c", program, f"{bucket.uri}/p", str(target)])  # noqa: S606  # our own program
    end = time.monotonic() + 120
    while not (journal := target.parent / ".folder.fetch.partial" / "journal").exists() or journal.read_text().count("\n") < 10:
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    there = journal.read_text().count("\n")
    watched.requests.clear()
    assert tree(fetch(f"{bucket.uri}/p", target)) == files
    asked = sum(watched.gets(f"p/{name}") for name in files)
    assert asked == 22 - there, "22 pieces in all"
    assert _left(target) == ["folder"]


def test_half_a_line_of_the_journal_is_no_piece(bucket, place, target):
    partial = target.parent / ".folder.fetch.partial"
    write(partial, {"journal": b'["a", "0000", 0]\n["b', "files/a": b"wrong", "files/stale": b"s"})
    assert tree(fetch(place, target)) == FILES
    assert _left(target) == ["folder"]


def test_pieces_that_are_not_what_the_journal_says_are_fetched_again(bucket, place, target):
    """After a power failure a name can be there without its content."""
    version = next(file["sha256"] for file in json.loads(bucket.get("p/.manifest.json"))["files"] if file["name"] == "deep/er/b.bin")
    write(target.parent / ".folder.fetch.partial", {"journal": f'["deep/er/b.bin", "{version}", 0]\n'.encode(), "files/deep/er/b.bin": bytes(2560)})
    assert tree(fetch(place, target)) == FILES


def test_one_object(bucket, tmp_path):
    bucket.put("deep/best.yaml", b"a: 1\n")
    path = tmp_path / "here" / "renamed.yaml"
    assert fetch_file(f"{bucket.uri}/deep/best.yaml", path).read_bytes() == b"a: 1\n"
    bucket.put("deep/best.yaml", b"a: 2\n")
    assert fetch_file(f"{bucket.uri}/deep/best.yaml", path).read_bytes() == b"a: 2\n"
    assert [found.name for found in path.parent.iterdir()] == ["renamed.yaml"]
    path.unlink()
    path.mkdir()
    with pytest.raises(CannotWriteError, match="a folder is in the way"):
        fetch_file(f"{bucket.uri}/deep/best.yaml", path)


def test_many_small_files(bucket, target, tmp_path):
    files = {f"{number % 7}/{number}": str(number).encode() for number in range(200)}
    publish(write(tmp_path / "source", files), f"{bucket.uri}/p")
    assert tree(fetch(f"{bucket.uri}/p", target)) == files


def test_a_listing_of_several_pages(bucket):
    names = [f"{number:04}" for number in range(1001)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: bucket.put(f"p/{name}", b""), names))
    assert [entry.name for entry in entries(f"{bucket.uri}/p")] == names


def test_too_little_room_is_said_before_anything_is_fetched(bucket, target):
    bucket.put("p/.manifest.json", b'{"format": 1, "files": [{"name": "a", "size": 1000000000000000, "sha256": "%s"}]}' % (b"0" * 64))
    with pytest.raises(CannotWriteError, match=r"p has 1000000\.00 GB, .* GB are free; free space or choose another folder"):
        fetch(f"{bucket.uri}/p", target)


def test_a_disk_that_fills_up(bucket, target, tmp_path):
    """The kernel refuses to write past a limit on file size: what a full disk does, without needing one."""
    publish(write(tmp_path / "source", {"large": bytes(1_000_000)}), f"{bucket.uri}/p")
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000));"
    )
    program = f"{limited} from pathlib import Path; from tts.storage import fetch; from tts.errors import CannotWriteError\n"
    program += "try: fetch(sys.argv[1], Path(sys.argv[2]))\nexcept CannotWriteError as error: print(error); sys.exit(73)"
    done = subprocess.run([sys.executable, "-c", program, f"{bucket.uri}/p", target], capture_output=True, text=True, check=False)
    assert done.returncode == 73, done.stderr
    assert "cannot write" in done.stdout
    assert not target.exists()


def test_a_target_that_cannot_be_written(bucket, place, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CannotWriteError, match="a file is in the way"):
        fetch(place, tmp_path / "file")
    with pytest.raises(CannotWriteError, match="a file is in the way"):
        fetch(place, tmp_path / "file" / "below")


class _Counting(Silent):
    def __init__(self):
        self.shown = []

    def task(self, title, total, done=0):
        self.shown.append((title, total))
        return super().task(title, total, done)


def test_progress_is_shown_in_megabytes(bucket, target, tmp_path):
    progress = _Counting()
    publish(write(tmp_path / "source", {"a": bytes(3_500_000), "b": b"1"}), f"{bucket.uri}/voice", progress)
    fetch(f"{bucket.uri}/voice", target, progress)
    assert progress.shown == [("publish voice (MB)", 3), ("fetch voice (MB)", 3)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_stop_does_not_wait_for_a_store_that_hangs(bucket, watched, target, tmp_path, number, code):
    """The answer never comes; the process is gone long before any limit."""
    publish(write(tmp_path / "source", {"metadata.csv": b"a|b\n"}), f"{bucket.uri}/corpus")
    asked, released = threading.Event(), threading.Event()

    def hang(request):
        if request.endswith("/corpus/metadata.csv"):
            asked.set()
            released.wait(200)

    watched.before = hang
    command = [sys.executable, "-m", "tts.cli", "prepare", f"{bucket.uri}/corpus", str(target)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert asked.wait(100)
    process.send_signal(number)
    _, said = process.communicate(timeout=50)  # a read may take 60 seconds
    released.set()
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert not target.exists()
