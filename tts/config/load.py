"""Configuration in and out of files: YAML and JSON, dotted overrides, errors that name field, value and what is allowed."""

import difflib
import json
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tts.config import Config, knobs
from tts.config.presets import PRESETS
from tts.errors import UsageError


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a name stands once: the second of two `steps:` would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        written: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in written:
                line = key.start_mark.line + 1
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands more than once, again in line {line}")
            written.add(key.value)
        return super().construct_mapping(node, deep)


def preset(name: str) -> Config:
    """The preset of that name. Raises UsageError with the known names."""
    if name not in PRESETS:
        raise UsageError(f"preset {name!r} is not known; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()


def from_mapping(values: Mapping[str, Any], source: str) -> Config:
    """A checked configuration from nested names. `source` says in errors where the values came from. Raises UsageError."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{source}: {describe(error)}") from None


def read_config(path: Path, base: Config | None = None) -> Config:
    """The configuration in a YAML or JSON file, laid over `base`. Raises UsageError."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506 - a safe loader
    except FileNotFoundError:
        raise UsageError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"configuration file {path} cannot be read: {' '.join(str(error).split())}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UsageError(f"configuration file {path} must hold sections such as 'training:', got {type(values).__name__}")
    # A section whose every line is commented out is None.
    values = {name: {} if value is None and name in Config.model_fields else value for name, value in values.items()}
    merged = merge(base.model_dump(mode="json"), values) if base else values
    return from_mapping(merged, str(path))


def override(config: Config, values: Mapping[str, Any], source: str = "override") -> Config:
    """The configuration with some knobs, given by full name (`training.steps`), set anew. Raises UsageError."""
    nested: dict[str, Any] = {}
    known = frozenset(_names())
    for path, value in values.items():
        if path not in known:
            raise UsageError(f"{source}: {unknown(path)}")
        section, name = path.split(".")
        nested.setdefault(section, {})[name] = value
    return from_mapping(merge(config.model_dump(mode="json"), nested), source)


def flatten(config: Config) -> dict[str, Any]:
    """Full knob name to value, as tracked and shown."""
    return {f"{section}.{name}": value for section, values in config.model_dump(mode="json").items() for name, value in values.items()}


def to_json(config: Config) -> str:
    """The configuration as `config.json` holds it."""
    return json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def merge(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` laid over `base`, section by section."""
    merged = dict(base)
    for name, value in values.items():
        below = merged.get(name)
        merged[name] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def unknown(path: str) -> str:
    """Says that a knob is not known, with the nearest known name."""
    close = difflib.get_close_matches(path, _names(), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"sections are {', '.join(Config.model_fields)}"
    return f"{path!r} is not a knob; {hint}"


def describe(error: ValidationError) -> str:
    """One line for every wrong field: its name, what is allowed, what was given."""
    lines = []
    wrong = [item["loc"] for item in error.errors()]
    for item in error.errors():
        if item["type"] == "too_short" and any(loc[: len(item["loc"])] == item["loc"] and loc != item["loc"] for loc in wrong):
            continue  # its members were left out because they are wrong: that is said already
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(unknown(path))
            continue
        message = str(item["ctx"]["error"]) if "error" in item.get("ctx", {}) else f"{item['msg']}, got {item['input']!r}{_meant(item)}"
        lines.append(f"{path}: {message}" if path else message)
    return "; ".join(lines)


def _meant(item: ErrorDetails) -> str:
    """The nearest of the names that a field knows."""
    if item["type"] != "literal_error" or not isinstance(item["input"], str):
        return ""
    close = difflib.get_close_matches(item["input"], re.findall(r"'([^']*)'", item["ctx"]["expected"]), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _names() -> list[str]:
    return [knob.path for knob in knobs(Config)]
