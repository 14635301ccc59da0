"""The edge of the process: dispatch, logging, signals, exit codes."""

import difflib
import errno
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from types import FrameType

from tts import __version__
from tts.cli.commands import COMMANDS
from tts.cli.parse import Command, parse
from tts.errors import INTERRUPTED, CannotWriteError, PreemptedError, TtsError, UsageError
from tts.threads import wait_patiently

HELP = ("-h", "--help", "help")
PLUGGED = "tts.commands"
"""Group of entry points: packages that know more than the product offer it commands, each a function of the arguments after its name."""
WRITE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM)


def main(argv: Sequence[str] | None = None) -> int:
    """The program `tts`: runs a command and returns its exit code (DESIGN: 0, 64, 65, 69, 70, 73, 75, 130)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    wait_patiently()
    verbose = "--verbose" in arguments or bool(os.environ.get("DEBUG"))
    try:
        with _logging(verbose), _sigterm():
            _dispatch(arguments)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has left, as `| head` does; what we did is done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return _report("interrupted; what was finished is kept, and the same command goes on from there", INTERRUPTED, verbose)
    except TtsError as error:
        return _report(f"error: {error}", error.exit_code, verbose)
    except OSError as error:
        if error.errno not in WRITE_ERRNOS:
            raise
        where = f" {error.filename}" if error.filename else ""
        return _report(f"error: cannot write{where}: {error.strerror}; free space or choose another folder", CannotWriteError.exit_code, verbose)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _dispatch(arguments: list[str]) -> None:
    name = arguments[0] if arguments else "--help"
    if name in HELP:
        print(_help())
    elif name == "--version":
        print(f"tts {__version__}")
    elif name in (plugged := _plugged(name)):
        _load(plugged[name])(arguments[1:])
    elif _group(name) and (len(arguments) == 1 or arguments[1] in HELP):
        print(_group_help(name))
    else:
        command, rest = _command(arguments)
        parse(command, rest)()


def _plugged(word: str = "") -> dict[str, EntryPoint]:
    """Commands that other packages offer, by their names; none for a word that is a command of ours."""
    ours = {name.split()[0] for name in COMMANDS}
    return {} if word in ours else {entry.name: entry for entry in entry_points(group=PLUGGED) if entry.name not in ours}


def _load(entry: EntryPoint) -> Callable[[list[str]], None]:
    """The function behind a command. Raises UsageError where the package is not there: a checkout has it, the installed program has not."""
    try:
        call: Callable[[list[str]], None] = entry.load()
    except ModuleNotFoundError as error:
        if error.name != entry.module.split(".")[0]:
            raise
        raise UsageError(
            f"tts {entry.name} needs {error.name}/ of the project's checkout, which is not installed here; run it in a checkout"
        ) from None
    return call


def _plugged_help() -> list[str]:
    """A line for each command of another package that is here."""
    width = max(len(name) for name in COMMANDS)
    there = [entry for _, entry in sorted(_plugged().items()) if find_spec(entry.module.split(".")[0])]
    return [f"  {entry.name:{width}}  {(_load(entry).__doc__ or '').splitlines()[0]}" for entry in there]


def _group(word: str) -> dict[str, Command]:
    """Commands of two words that begin with this one, by their second word."""
    return {name.split()[1]: command for name, command in COMMANDS.items() if name.split()[0] == word and " " in name}


def _command(arguments: list[str]) -> tuple[Command, list[str]]:
    """The command that the first word, or the first two, name, and what follows it. Raises UsageError with the nearest name."""
    word = arguments[0]
    if word in COMMANDS:
        return COMMANDS[word], arguments[1:]
    group = _group(word)
    if not group:
        known = {name.split()[0]: name.split()[0] for name in COMMANDS} | {name.split()[1]: name for name in COMMANDS if " " in name}
        first = list(dict.fromkeys(name.split()[0] for name in COMMANDS))
        raise UsageError(f"{word!r} is not a command; {_hint(word, known, first)}")
    if arguments[1] not in group:
        known = {second: command.name for second, command in group.items()}
        raise UsageError(f"{word} {arguments[1]!r} is not a command; {_hint(arguments[1], known, list(known.values()))}")
    return group[arguments[1]], arguments[2:]


def _hint(word: str, known: dict[str, str], all_of_them: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {known[close[0]]}?" if close else f"choose one of {', '.join(all_of_them)}"


def _help() -> str:
    return "\n".join(
        [
            "usage: tts COMMAND [ARGUMENTS] [--preset NAME] [--config FILE] [--SECTION.KNOB VALUE ...]",
            "",
            "Trains a Tacotron 2 voice and finds its hyperparameters by itself.",
            "",
            *_listed(COMMANDS.values()),
            *_plugged_help(),
            "",
            "tts COMMAND --help shows a command's arguments and knobs. Later sources win: preset, file, knobs.",
        ]
    )


def _group_help(word: str) -> str:
    lines = _listed(_group(word).values())
    return "\n".join([f"usage: tts {word} COMMAND [ARGUMENTS]", "", *lines, "", f"tts {word} COMMAND --help shows a command's arguments."])


def _listed(commands: Iterable[Command]) -> list[str]:
    width = max(len(name) for name in COMMANDS)
    return [f"  {command.name:{width}}  {command.summary}" for command in commands]


def _report(message: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print(f"tts: {message}", file=sys.stderr)
    return code


@contextmanager
def _logging(verbose: bool) -> Iterator[None]:
    """Log lines on standard error, coloured on a terminal, for as long as the command runs."""
    handler = _handler()
    root, ours = logging.getLogger(), logging.getLogger("tts")
    before = root.level, ours.level
    root.addHandler(handler)
    ours.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(handler)
        ours.setLevel(before[1])


def _handler() -> logging.Handler:
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        return RichHandler(console=Console(stderr=True), show_path=False, omit_repeated_times=False, log_time_format="%H:%M:%S")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    return handler


@contextmanager
def _sigterm() -> Iterator[None]:
    """SIGTERM stops a command as Ctrl-C does, with its own exit code. Training listens for itself, to write a checkpoint first."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise PreemptedError("stopped by SIGTERM; what was finished is kept, and the same command goes on from there")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
