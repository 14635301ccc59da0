"""Every knob of the run, beside its default."""

from typing import Any

from tts.config import Config, knobs
from tts.config.load import flatten
from tts.diagnostics.page import Cell, Section, Table


def configuration_section(config: Config) -> Section:
    """A table of what differs from the defaults, and one of everything."""
    values, defaults = flatten(config), flatten(Config())
    meanings = {knob.path: knob.description for knob in knobs(Config)}
    changed = [name for name in values if values[name] != defaults[name]]
    columns = ("knob", "value", "default", "meaning")
    rows = {name: (name, Cell(_show(values[name])), Cell(_show(defaults[name]), "quiet"), meanings[name]) for name in values}
    caption = f"{len(changed)} of {len(values)} knobs differ from the defaults, which are the preset tacotron2."
    return Section(
        "configuration",
        "Configuration",
        blocks=(
            Table(columns, tuple(rows[name] for name in changed), caption=caption),
            Table(columns, tuple(rows.values()), caption=f"All {len(values)} knobs", foldable=True),
        ),
    )


def _show(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_show(entry) for entry in value)
    if isinstance(value, dict):
        return " ".join(str(entry) for entry in value.values())
    return "empty" if value == "" else str(value)
