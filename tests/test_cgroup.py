"""Where a process's control groups are, as hosts and containers mount them."""

from itertools import pairwise

import pytest

from tts.cgroup import control_groups


def mounted(folder, *groups, unified=True):
    for name in ("", *groups):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if unified:
        (folder / "cgroup.controllers").write_text("cpu memory\n")
    return folder


def found(folder, membership, controller="memory"):
    told = folder.parent / "membership"
    told.write_text(membership)
    return [str(group.relative_to(folder)) for group in control_groups(controller, folder, told)]


@pytest.mark.parametrize(
    ("groups", "membership", "expected"),
    [
        pytest.param((), "0::/\n", ["."], id="a container with its own view"),
        pytest.param(("a/b",), "0::/a/b\n", ["a/b", "a", "."], id="the host, or a group inside a container"),
        pytest.param((), "0::/kubepods/pod-1/container\n", ["."], id="the host's path, the container's mount"),
        pytest.param(("inner",), "0::/kubepods/pod-1/container/inner\n", ["inner", "."], id="... and a group inside"),
        pytest.param(("b",), "0::/../b\n", ["."], id="a group that the mount does not show"),
        pytest.param(("memory",), "0::/\n", ["."], id="a group that is called as a controller"),
        pytest.param(("memory",), "0::/memory\n", ["memory", "."], id="... and is the process's"),
    ],
)
def test_version_2(tmp_path, groups, membership, expected):
    assert found(mounted(tmp_path / "fs", *groups), membership) == expected


MEMBERSHIP_1 = "9:name=systemd:/other\n4:cpu,cpuacct:/a\n3:memory:/a/b\n0::/wrong\n"


@pytest.mark.parametrize(
    ("groups", "expected"),
    [(("memory/a/b",), ["memory/a/b", "memory/a", "memory"]), (("memory/b",), ["memory/b", "memory"]), (("memory",), ["memory"])],
)
def test_version_1_has_a_folder_for_each_controller(tmp_path, groups, expected):
    assert found(mounted(tmp_path / "fs", *groups, unified=False), MEMBERSHIP_1) == expected


def test_version_1_may_name_several_controllers_in_one_line(tmp_path):
    assert found(mounted(tmp_path / "fs", "cpu/a", unified=False), MEMBERSHIP_1, "cpu") == ["cpu/a", "cpu"]


def test_both_versions_at_once(tmp_path):
    folder = mounted(tmp_path / "fs", "cpu/a", "unified/c", unified=False)
    assert found(folder, "4:cpu:/a\n0::/c\n") == ["unified/c", "unified"], "memory is not among the controllers of version 1"
    assert found(folder, "4:cpu:/a\n0::/c\n", "cpu") == ["cpu/a", "cpu"]


def test_where_nothing_is_mounted_there_is_none(tmp_path):
    assert control_groups("memory", tmp_path / "nowhere", tmp_path / "membership") == []


def test_this_process_has_a_group_that_exists():
    groups = control_groups("memory")
    assert all((group / "cgroup.procs").is_file() for group in groups)
    assert all(outer in inner.parents for inner, outer in pairwise(groups))
