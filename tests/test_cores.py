import os

import pytest

from tts.cores import usable_cores


def _allowed():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def test_without_a_limit_every_core_of_the_affinity_is_usable(tmp_path):
    assert usable_cores(tmp_path) == _allowed()


@pytest.mark.parametrize(("limit", "cores"), [("100000 100000", 1), ("150000 100000", 2), ("20000 100000", 1), ("max 100000", None)])
def test_limit_of_cgroup_v2_rounded_up(tmp_path, limit, cores):
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert usable_cores(tmp_path) == min(_allowed(), cores or _allowed())


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("-1", None)])
def test_limit_of_cgroup_v1(tmp_path, quota, cores):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path) == min(_allowed(), cores or _allowed())


def test_a_limit_above_the_affinity_does_not_add_cores(tmp_path):
    (tmp_path / "cpu.max").write_text("99900000 100000\n")
    assert usable_cores(tmp_path) == _allowed()
