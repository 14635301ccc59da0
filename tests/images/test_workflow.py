"""What runs on each push takes nothing that somebody could change under its name."""

import re

import pytest
import yaml

from images.build import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request) -> dict:
    return yaml.safe_load(request.param.read_text())


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_actions_are_named_by_commit_and_programs_by_version(workflow):
    for step in steps(workflow):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step["uses"]) if "uses" in step else step["run"]
        for program in re.findall(r"go install (\S+)", step.get("run", "")):
            assert re.search(r"@v\d+\.\d+\.\d+$", program), program


def test_jobs_may_do_no_more_than_read(workflow):
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert job["permissions"] == {"contents": "read"}, name
        assert job["timeout-minutes"] <= 90, name


def test_a_checkout_keeps_no_credentials_and_a_secret_is_in_no_command(workflow):
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        assert "secrets." not in step.get("run", "")
