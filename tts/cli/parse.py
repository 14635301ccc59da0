"""Arguments into a call of a command. Everything that is wrong with them becomes one UsageError."""

import contextlib
import dataclasses
import difflib
import inspect
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import tyro

from tts.cli import flags
from tts.cli.places import Folder, resolved
from tts.config import Config
from tts.config import knobs as knobs_of
from tts.config.resolve import config_of, resolve
from tts.errors import UsageError
from tts.progress import for_terminal
from tts.storage import local as from_anywhere

__all__ = ["Call", "Command", "Folder", "parse"]
CONFIG_FILE = "config file"
"""Name of the value of --config among a call's places."""


@dataclass(frozen=True)
class Command:
    """A function, and the sections of the configuration that it takes."""

    call: Callable[..., None]
    name: str
    """One word, or two: `study show` is called by `tts study show`, and `tts study` lists its like."""
    taken: tuple[str, ...]
    """Sections whose flags are accepted."""
    shown: tuple[str, ...]
    """Sections whose flags are in the help."""
    folder: str
    """The argument whose folder holds the configuration to start from; empty: the defaults."""

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.call.__doc__ or "").strip().splitlines()[0]


@dataclass(frozen=True)
class Call:
    """A command with its arguments."""

    command: Command
    arguments: dict[str, Any]
    places: dict[str, str | None]
    """Those that are folders and files, as they were given."""
    marks: dict[str, Folder]
    configuration: dict[str, Any]

    def __call__(self) -> None:
        """Runs the command. Raises TtsError."""
        with resolved(self.places, self.marks, for_terminal()) as paths:
            file = paths.pop(CONFIG_FILE, None)
            arguments = self.arguments | paths
            if self.command.taken:
                arguments["config"] = self._config(arguments, file)
            self.command.call(**arguments)

    def _config(self, arguments: dict[str, Any], file: Path | None) -> Config:
        """A command that takes some sections leaves the others of its folder alone, whatever a preset or a file says about them."""
        folder = from_anywhere(str(arguments[self.command.folder])) if self.command.folder else None
        config = resolve(folder=folder, file=file, **self.configuration)
        if folder is None:
            return config
        return config_of(folder).model_copy(update={name: getattr(config, name) for name in self.command.taken})


def parse(command: Command, argv: Sequence[str]) -> Call:
    """The call that the arguments ask for. Raises UsageError; SystemExit(0) after --help."""
    kind, marks = _arguments(command, command.shown if {"-h", "--help"} & set(argv) else command.taken)
    _check_names(command, kind, argv)
    parsed = _parse(command, kind, argv)
    names = [name for name in inspect.signature(command.call).parameters if name != "config"]
    places = {name: getattr(parsed, name) for name in marks}
    configuration: dict[str, Any] = {}
    if command.taken:
        places[CONFIG_FILE], marks[CONFIG_FILE] = parsed.config, Folder("read", "file")
        configuration = {"name": parsed.preset, "overrides": flags.given(parsed, command.taken)}
    for name, mark in marks.items():
        mark.check(places[name])
    return Call(command, {name: getattr(parsed, name) for name in names if name not in marks}, places, marks, configuration)


def _arguments(command: Command, sections: Sequence[str]) -> tuple[type, dict[str, Folder]]:
    """The class that tyro fills: the function's own arguments, --preset, --config and the knobs."""
    hints = get_type_hints(command.call, include_extras=True)
    fields: list[Any] = []
    marks: dict[str, Folder] = {}
    for name, parameter in inspect.signature(command.call).parameters.items():
        if name == "config":
            continue
        positional = parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        kind = hints[name]
        mark = next((mark for mark in get_args(kind) if isinstance(mark, Folder)), None)
        if mark is not None:
            marks[name] = mark  # read as text, because Path takes a slash away from a URI
            kind = Annotated[(str | None if parameter.default is None else str, *get_args(kind)[1:])]
        kind = Annotated[kind, tyro.conf.Positional] if positional else kind
        default = str(parameter.default) if isinstance(parameter.default, Path) else parameter.default
        fields.append((name, kind) if default is inspect.Parameter.empty else (name, kind, default))
    if command.taken:
        base = f"the configuration in {command.folder.upper()}" if command.folder else "the defaults (preset tacotron2)"
        help_preset = f"Sizes and settings to start from, over {base}: tacotron2, full, small or demo."
        fields.append(("preset", Annotated[str, tyro.conf.arg(metavar="NAME", help=help_preset, help_behavior_hint="")], ""))
        help_config = "YAML or JSON with some knobs (such as a study's best.yaml), over the preset."
        fields.append(("config", Annotated[str | None, tyro.conf.arg(metavar="FILE", help=help_config, help_behavior_hint="")], None))
    help_verbose = "Log details, and show where an error came from."
    fields.append(("verbose", Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help=help_verbose, help_behavior_hint="")], False))
    fields += flags.fields(sections)
    kind = dataclasses.make_dataclass(command.name, fields, kw_only=True)
    hidden = [name for name in command.taken if name not in command.shown]
    kind.__doc__ = inspect.cleandoc(command.call.__doc__ or "") + (f"\n\nAlso takes the knobs of: {', '.join(hidden)}." if hidden else "")
    return kind, marks


def _check_names(command: Command, kind: type, argv: Sequence[str]) -> None:
    """Refuses an unknown option with the nearest known name. Raises UsageError."""
    paths = [knob.path for name, section in flags.sections().items() if name in command.taken for knob in knobs_of(section, f"{name}.")]
    known = [*(field.name for field in dataclasses.fields(kind) if field.name not in command.taken), *paths, "help"]
    for token in argv:
        name = token.split("=")[0].removeprefix("--").replace("-", "_")
        if not token.startswith("--") or name in known:
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        section = name.split(".")[0]
        if section in Config.model_fields and section not in command.taken:
            raise UsageError(f"{token.split('=')[0]}: `tts {command.name}` takes no knobs of section {section}; see tts {command.name} --help")
        hint = f"did you mean --{close[0]}?" if close else f"see tts {command.name} --help"
        raise UsageError(f"unknown option {token.split('=')[0]}; {hint}")


def _parse(command: Command, kind: type, argv: Sequence[str]) -> Any:
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.cli(kind, prog=f"tts {command.name}", args=list(argv), use_underscores=True)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(f"{_one_line(captured.getvalue())}; see tts {command.name} --help") from None


def _one_line(box: str) -> str:
    """The message inside the box that tyro draws around it."""
    text = " ".join(re.sub(r"[╭╮╰╯│─]|^[|+]|[|+]$|-{3,}", " ", box, flags=re.MULTILINE).split())
    text = re.split(r" For full helptext| Argument helptext", text)[0].rstrip(".")
    text = re.sub(r"^(Required options|Missing argument|Value error|Parsing error|Invalid choice|Unrecognized options) ", "", text)
    text = re.sub(
        r"^Error parsing (\S+): no type matching \{None\}\|(\w+) could be instantiated from \['(.*?)'\].*", r"\1: expected \2, got '\3'", text
    )
    return re.sub(r"^Missing from [\w -]+: (\S+) .*", r"\1 is missing", text)
