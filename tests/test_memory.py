"""Memory that a process may take, on hand-made control groups of both versions, nested or not, and on this machine."""

from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.cgroup import control_groups
from tts.memory import Memory, available_memory, counted, memory, memory_limit

MACHINE = SimpleNamespace(total=10_000_000_000, available=8_000_000_000)
UNLIMITED_1 = "9223372036854771712\n"


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: MACHINE)


@pytest.fixture
def membership(tmp_path):
    file = tmp_path / "membership"
    file.write_text("3:memory:/pod/container\n0::/pod/container\n")
    return file


def control_group(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text))
    return folder


def two(limit, taken, *, unused_files=0, files=0, high="max"):
    stat = f"anon 3\ninactive_file {unused_files}\nactive_file {files}\n"
    return {"memory.max": limit, "memory.high": high, "memory.current": f"{taken}\n", "memory.stat": stat}


def one(limit, taken, *, unused_files=0, files=0):
    stat = f"inactive_file 1\nactive_file 1\ntotal_inactive_file {unused_files}\ntotal_active_file {files}\n"
    return {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": f"{taken}\n", "memory.stat": stat}


def below(folder, files):
    return {f"{folder}/{name}": text for name, text in files.items()}


def test_without_a_limit_the_machines_counts(tmp_path, membership):
    of_machine = Memory(10_000_000_000, 2_000_000_000, 2_000_000_000, "this machine")
    folders = [
        tmp_path / "none",
        control_group(tmp_path / "two", two("max\n", 5)),
        control_group(tmp_path / "one", below("memory", one(UNLIMITED_1, 0))),
    ]
    for folder in folders:
        assert memory(folder, membership) == of_machine
        assert memory(folder, membership).share == 0.2
        assert available_memory(folder, membership) == 8_000_000_000
        assert memory_limit(folder, membership) == 10_000_000_000


@pytest.mark.parametrize("version", ["two", "one"])
def test_files_that_nobody_used_lately_are_no_work_and_no_file_is_held(tmp_path, membership, version):
    files = two(4000, 3000, unused_files=700, files=500) if version == "two" else below("memory", one(4000, 3000, unused_files=700, files=500))
    folder = control_group(tmp_path / version, files)

    assert memory(folder, membership) == Memory(4000, 2300, 1800, "this container")
    assert memory(folder, membership).share == 0.45
    assert available_memory(folder, membership) == 1700
    assert memory_limit(folder, membership) == 4000


def test_above_memory_high_a_process_only_crawls(tmp_path, membership):
    folder = control_group(tmp_path / "two", two("4000\n", 1500, high="2000\n"))

    assert memory(folder, membership).share == 0.75
    assert memory_limit(folder, membership) == 2000


@pytest.mark.parametrize("version", ["two", "one"])
@pytest.mark.parametrize(("inner", "outer", "nearest"), [(4000, 10_000, 0.5), (None, 10_000, 0.3), (4000, 3100, 3000 / 3100), (4000, None, 0.5)])
def test_limits_of_the_groups_above_count_and_the_nearest_is_told(tmp_path, membership, version, inner, outer, nearest):
    group, unlimited, root = (two, "max\n", "") if version == "two" else (one, UNLIMITED_1, "memory/")
    files = below(f"{root}pod/container", group(inner or unlimited, 2000)) | below(f"{root}pod", group(outer or unlimited, 3000))
    folder = control_group(tmp_path / "fs", files)  # the host's root has no limit, and no files to say so

    assert memory(folder, membership).share == nearest
    assert memory_limit(folder, membership) == min(limit for limit in (inner, outer) if limit)
    assert available_memory(folder, membership) == min(left for left in (inner and inner - 2000, outer and outer - 3000) if left)


def test_a_machine_with_less_than_the_containers_limit_counts(tmp_path, membership):
    folder = control_group(tmp_path / "two", two("20000000000", 0))

    assert memory(folder, membership).of == "this machine"
    assert memory_limit(folder, membership) == 10_000_000_000


def test_a_container_above_its_limit_has_nothing_left(tmp_path, membership):
    assert available_memory(control_group(tmp_path / "two", two("1000", 1500)), membership) == 0


@given(data=st.data())
def test_what_is_held_is_part_of_the_working_set_and_that_of_what_is_taken(tmp_path_factory, data):
    taken = data.draw(st.integers(0, 10**9))
    unused_files = data.draw(st.integers(0, taken))
    files = data.draw(st.integers(0, taken - unused_files))
    folder = control_group(tmp_path_factory.mktemp("fs"), two(10**9, taken, unused_files=unused_files, files=files))

    found = memory(folder, folder / "nobody")

    assert 0 <= found.held <= found.working_set <= taken
    assert found.held + files + unused_files == taken
    assert 0 <= found.share <= 1


def test_this_machine_can_be_asked(monkeypatch):
    monkeypatch.undo()

    assert 0 < available_memory() <= memory_limit() <= psutil.virtual_memory().total
    assert 0 < memory().share < 1


def test_a_real_group_counts_as_the_kernel_does(monkeypatch):
    monkeypatch.undo()
    groups = [group for group in control_groups("memory") if any((group / name).is_file() for name in ("memory.current", "memory.usage_in_bytes"))]
    if not groups:
        pytest.skip("no control group of memory here")

    before = counted(groups[0], 2**62).held
    block = bytearray(b"x" * 2**26)
    after = counted(groups[0], 2**62).held

    assert after - before > len(block) // 2
    del block
