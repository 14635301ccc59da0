"""One flag for each knob, made from the configuration's fields: `--training.steps 20`."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Annotated, Any, get_args, get_origin

import tyro
import yaml
from pydantic.fields import FieldInfo

from tts.config import Config, Knob, Section, knobs
from tts.config.presets import PRESETS
from tts.errors import UsageError

METAVARS = {int: "INT", float: "FLOAT", bool: "{true,false}", str: "TEXT"}
SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def sections() -> dict[str, type[Section]]:
    """Every section of the configuration by its name."""
    return {name: field.annotation for name, field in Config.model_fields.items() if isinstance(field.annotation, type)}


def fields(wanted: Collection[str]) -> list[tuple[str, Any, Any]]:
    """Fields for `dataclasses.make_dataclass`: a group of flags for each of the sections.

    A flag that is not given is None: only what was said overrides the sources before it.
    """
    defaults = {name: {knob.path: value for knob, value in _values(make())} for name, make in PRESETS.items()}
    groups = []
    for name, section in sections().items():
        if name not in wanted:
            continue
        flags = [(knob.path.split(".")[1], _flag(knob, section, defaults), None) for knob in knobs(section, f"{name}.")]
        group = dataclasses.make_dataclass(name, flags, frozen=True)
        group.__doc__ = Config.model_fields[name].description
        groups.append((name, group, dataclasses.field(default_factory=group)))
    return groups


def given(parsed: object, taken: Collection[str]) -> dict[str, Any]:
    """Full knob name to what was given for it. Raises UsageError."""
    values = {}
    structures = {knob.path for knob in knobs(Config) if _is_structure(knob.type)}
    for name in sections():
        if name not in taken:
            continue
        for field, value in vars(getattr(parsed, name)).items():
            path = f"{name}.{field}"
            if value is not None:
                values[path] = _structure(path, value) if path in structures else value
    return values


def _is_structure(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[0] is not str


def _structure(name: str, text: str) -> Any:
    """A value that is more than a number, a word or a list of words."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: not YAML: {' '.join(str(error).split())}, got {text!r}") from None


def _values(config: Config) -> list[tuple[Knob, Any]]:
    return [(knob, getattr(getattr(config, knob.path.split(".")[0]), knob.path.split(".")[1])) for knob in knobs(Config)]


def _flag(knob: Knob, section: type[Section], defaults: Mapping[str, Mapping[str, Any]]) -> Any:
    """The type of a flag for tyro. Texts are turned into values, and checked, in one place for files, flags and forms: by pydantic."""
    hint = _default(knob, defaults)
    bounds = _bounds(section.model_fields[knob.path.split(".")[1]])
    argument = tyro.conf.arg(metavar=_metavar(knob.type), help=knob.description, help_behavior_hint=f"({bounds}default {hint})")
    several = get_origin(knob.type) is tuple and get_args(knob.type)[0] is str
    kind: Any = tuple[str, ...] | None if several else str | None
    return Annotated[kind, argument]


def _metavar(kind: Any) -> str:
    if kind in METAVARS:
        return METAVARS[kind]
    if get_origin(kind) is tuple:
        return "NAME [NAME ...]" if get_args(kind)[0] is str else "YAML"
    return "{" + ",".join(str(choice) for choice in get_args(kind)) + "}"


def _bounds(field: FieldInfo) -> str:
    signs = [f"{sign} {getattr(item, name):g}" for item in field.metadata for name, sign in SIGNS.items() if hasattr(item, name)]
    return f"{', '.join(signs)}; " if signs else ""


def _default(knob: Knob, defaults: Mapping[str, Mapping[str, Any]]) -> str:
    """The default, and the presets that differ from it."""
    others = [f"{name} {_show(values[knob.path])}" for name, values in defaults.items() if values[knob.path] != knob.default]
    return "; ".join([_show(knob.default), *others])


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} of them"
    return "empty" if value == "" else f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
