"""docs/tuning.md says what is so: its YAML is taken, its commands are known, its tables are complete."""

import re
from pathlib import Path
from typing import get_args

import pytest

from tts.cli.commands import COMMANDS
from tts.cli.parse import parse
from tts.config import Config, knobs
from tts.config.load import read_config
from tts.config.search import Pruner, Sampler
from tts.training.validation import VALIDATION_METRICS
from tts.tuning.search.objective import Objective
from tts.tuning.search.space import default_params, search_space
from tts.tuning.search.strategy import SEVERAL_OBJECTIVES, pruner, sampler

PAGE = Path("docs/tuning.md").read_text(encoding="utf-8")
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
LINES = [line for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines() if line.startswith("tts ")]


def rows(heading):
    """The cells of the table under a heading."""
    table = re.search(rf"^## {heading}\n.*?((?:^\|[^\n]*\n)+)", PAGE, re.DOTALL | re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()[2:]]


@pytest.mark.parametrize("text", YAML)
def test_every_example_is_a_study_that_can_be_made(text, tmp_path):
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")

    config = read_config(tmp_path / "study.yaml", Config())

    space = search_space(config.tuning)
    assert default_params(config, space)
    sampler(config.tuning, 0, space)
    pruner(config.tuning)
    Objective(config.tuning.objective).check(VALIDATION_METRICS)


@pytest.mark.parametrize("line", LINES)
def test_every_command_is_one(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "best.yaml").write_text("optimiser:\n  learning_rate: 0.001\n", encoding="utf-8")
    words = line.split()[1:]
    name = words[0] if words[0] in COMMANDS else " ".join(words[:2])

    call = parse(COMMANDS[name], words[len(name.split()) :])

    assert call.command.name == name


def test_the_tables_name_every_sampler_and_pruner():
    samplers = {row[0].strip("`"): row[-1] for row in rows("Samplers")}

    assert samplers == {name: "yes" if name in SEVERAL_OBJECTIVES else "no" for name in get_args(Sampler)}
    assert {row[0].strip("`") for row in rows("Pruners")} == set(get_args(Pruner))


def test_every_knob_that_is_named_exists():
    known = {knob.path for knob in knobs(Config)}

    named = set(re.findall(r"`(tuning\.\w+)`", PAGE))

    assert len(named) > 8
    assert named <= known
