"""The configuration of a stage from its sources: defaults or a folder's own, preset, file, overrides. Later sources win."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts.config import Config
from tts.config.load import override, preset, read_config
from tts.errors import DataError, UsageError

PREPARED = ("text", "audio", "quality")
"""Sections that were decided when the features were made: a preset does not change them later."""


def resolve(*, folder: Path | None = None, name: str = "", file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration in `folder` (a feature store or a run; without one the defaults), under a preset, a file and single knobs.

    Raises UsageError for a wrong value, DataError if `folder` holds no configuration.
    """
    config = config_of(folder) if folder else Config()
    if name:
        chosen = preset(name)
        kept = {section: getattr(config, section) for section in PREPARED} if folder else {}
        config = chosen.model_copy(update=kept)
    if file:
        config = read_config(file, config)
    return override(config, overrides, "option") if overrides else config


def config_of(folder: Path) -> Config:
    """The configuration that a feature store or a run was made with. Raises DataError."""
    path = folder / "config.json"
    if not folder.is_dir():
        raise DataError(f"folder {folder} does not exist" if not folder.exists() else f"{folder} is not a folder")
    if not path.is_file():
        raise DataError(f"{folder} has no config.json: it is not a folder that `tts prepare`, `tts tune` or `tts train` made")
    try:
        return read_config(path)
    except UsageError as error:
        raise DataError(f"{error}; the folder was damaged or made by another version: make it anew") from None


def overrides_from_json(text: str) -> dict[str, Any]:
    """Overrides as the pipeline's form takes them: a JSON object of full knob names; empty text means none. Raises UsageError."""
    try:
        values = json.loads(text) if text.strip() else {}
    except json.JSONDecodeError as error:
        raise UsageError(f'overrides must be a JSON object such as {{"training.steps": 2000}}, got {text!r} ({error})') from None
    if not isinstance(values, dict):
        raise UsageError(f'overrides must be a JSON object such as {{"training.steps": 2000}}, got {text!r}')
    return values
