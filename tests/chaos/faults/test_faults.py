"""Each fault once: the short form of `python -m tests.chaos faults`."""

from pathlib import Path

import pytest

from tests.chaos.faults.catalogue import FAULTS
from tests.chaos.faults.fault import Found, judge
from tests.chaos.faults.stage import Stage
from tests.chaos.faults.table import table

DOCUMENT = Path(__file__).parents[3] / "docs" / "recovery.md"


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("faults"))
    stage.build()
    return stage


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_fault_is_named_and_ends_as_it_must(stage, fault):
    if hindrance := fault.hindrance():
        pytest.skip(hindrance)
    assert judge(fault, stage, 0) == Found()


def test_the_documented_table_is_what_the_faults_are_held_to():
    """`python -m tests.chaos faults --table` prints it."""
    assert table(FAULTS) in DOCUMENT.read_text(encoding="utf-8")


def test_faults_have_names_of_their_own():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
