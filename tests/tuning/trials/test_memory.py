import psutil
import pytest

from tts.tuning.trials.memory import available_memory

MACHINE = 8_000_000_000


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": MACHINE}))


def control_group(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_without_a_limit_the_machines_counts(tmp_path):
    assert available_memory(tmp_path) == MACHINE
    assert available_memory(control_group(tmp_path, {"memory.max": "max\n", "memory.current": "5\n", "memory.stat": "anon 3\n"})) == MACHINE


def test_what_a_containers_limit_leaves_files_that_nobody_uses_make_room(tmp_path):
    two = {"memory.max": "4000\n", "memory.current": "3000\n", "memory.stat": "anon 1800\ninactive_file 700\nactive_file 500\n"}
    one = {
        "memory/memory.limit_in_bytes": "4000\n",
        "memory/memory.usage_in_bytes": "3000\n",
        "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 700\n",
    }

    assert available_memory(control_group(tmp_path / "two", two)) == 1700
    assert available_memory(control_group(tmp_path / "one", one)) == 1700


def test_a_machine_with_less_than_the_containers_limit_counts(tmp_path):
    # Version 1 writes no limit as a huge number.
    files = {"memory.limit_in_bytes": "9223372036854771712\n", "memory.usage_in_bytes": "0\n", "memory.stat": ""}

    assert available_memory(control_group(tmp_path, {f"memory/{name}": text for name, text in files.items()})) == MACHINE


def test_a_container_above_its_limit_has_nothing_left(tmp_path):
    assert available_memory(control_group(tmp_path, {"memory.max": "1000", "memory.current": "1500", "memory.stat": "inactive_file 0"})) == 0


def test_this_machine_can_be_asked(monkeypatch):
    monkeypatch.undo()

    assert 0 < available_memory() <= psutil.virtual_memory().total
