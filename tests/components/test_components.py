"""Each component: thin, typed, documented, in our image, without pip."""

import importlib
import inspect
from pathlib import Path

import pytest

from components.image import IMAGE

NAMES = ("prepare", "tune", "train", "diagnose", "evaluate", "register")


@pytest.mark.parametrize("name", NAMES)
def test_a_component_is_thin_and_complete(name):
    component = getattr(importlib.import_module(f"components.{name}"), name)
    container = component.component_spec.implementation.container
    assert container.image == IMAGE
    assert "pip" not in " ".join(container.command[:-1])
    source = inspect.getsource(component.python_func)
    body = source[source.rindex('"""') :].strip().splitlines()
    assert len(body) <= 9, "a component calls tts once, and logs what it returns"
    arguments = inspect.signature(component.python_func).parameters
    assert all(f"        {argument}: " in source for argument in arguments), "every argument is described"
    inputs = component.component_spec.inputs or {}
    assert all(item.default is None for item in inputs.values()), "defaults are the pipeline's"


def test_there_is_a_component_for_each_stage():
    files = {path.stem for path in Path("components").resolve().glob("*.py")} - {"__init__", "image"}
    assert files == set(NAMES)
