"""The pipeline's form: named fields with types, filled in from texts, and checked before anything is sent."""

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tts.errors import DataError, UsageError
from tts.storage import is_remote


@dataclass(frozen=True)
class Form:
    """What a compiled pipeline asks for."""

    pipeline: str
    """Its name."""
    kinds: Mapping[str, str]
    """KFP's type of each field."""
    needed: tuple[str, ...]
    """Fields without a default."""

    @staticmethod
    def of(package: Path) -> "Form":
        """Of a compiled pipeline. Raises DataError."""
        try:
            document = next(iter(yaml.safe_load_all(package.read_text(encoding="utf-8"))))
            fields = document["root"].get("inputDefinitions", {}).get("parameters", {})
            kinds = {name: str(field["parameterType"]) for name, field in fields.items()}
            needed = tuple(name for name, field in fields.items() if not field.get("isOptional"))
            return Form(document["pipelineInfo"]["name"], kinds, needed)
        except FileNotFoundError:
            raise DataError(f"{package} does not exist; compile the pipeline (make compile), or name a file that is there") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError, StopIteration) as error:
            raise DataError(f"{package} is no compiled pipeline ({' '.join(str(error).split())}); compile it anew (make compile)") from None

    def filled(self, given: Sequence[str]) -> dict[str, Any]:
        """The values of `NAME=VALUE` texts. Raises UsageError naming the field, its value and what is allowed."""
        values: dict[str, Any] = {}
        for text in given:
            name, sign, value = text.partition("=")
            if not sign:
                raise UsageError(f"{text!r} is no field of the form; write NAME=VALUE, such as preset=demo")
            if name not in self.kinds:
                close = difflib.get_close_matches(name, self.kinds, n=1, cutoff=0.5)
                hint = f"did you mean {close[0]}?" if close else f"choose among {', '.join(self.kinds)}"
                raise UsageError(f"{name!r} is no field of pipeline {self.pipeline}; {hint}")
            if name in values:
                raise UsageError(f"{name} is given twice")
            values[name] = _read(name, self.kinds[name], value)
        for name in self.needed:
            if values.get(name, "") == "":
                raise UsageError(f"{name} is missing; give it as {name}=VALUE")
        return values


def check(values: Mapping[str, Any]) -> None:
    """What the steps would refuse later, refused now: knobs, places, the launcher. Raises UsageError."""
    from tts.step.stages import configuration, devices, on_pods

    named = {"text.language": values.get("language", ""), "tuning.trials": values.get("trials", 0)}
    named |= {"training.steps": values.get("training_steps", 0), "tuning.workers": values.get("workers", 0)}
    named |= {"tracking.uri": values.get("tracking_uri", ""), "tuning.gpus_per_trial": devices(values.get("gpus", "0"))}
    configuration(None, values.get("preset", ""), values.get("overrides", ""), named)
    on_pods(values.get("launcher", ""))
    for name in ("corpus", "work"):
        is_remote(values.get(name, ""))


def _read(name: str, kind: str, text: str) -> Any:
    if kind == "STRING":
        return text
    words, read = _KINDS.get(kind, (kind, json.loads))
    try:
        return read(text)
    except ValueError:
        raise UsageError(f"{name} must be {words}, got {text!r}") from None


def _json(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = json.loads(text)
        if not isinstance(value, kind):
            raise TypeError
        return value

    return lambda text: _or_value_error(read, text)


def _or_value_error(read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except TypeError as error:
        raise ValueError from error


_KINDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "NUMBER_INTEGER": ("a whole number", int),
    "NUMBER_DOUBLE": ("a number", float),
    "BOOLEAN": ("true or false", _json(bool)),
    "STRUCT": ("a JSON object", _json(dict)),
    "LIST": ("a JSON list", _json(list)),
}
