"""`tts study ...`: a look at a study, and what can be done with one that is there, also while workers run."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tts.cli.parse import Command
from tts.cli.places import Folder, resolved
from tts.errors import UsageError
from tts.progress import for_terminal

if TYPE_CHECKING:
    from tts.tuning.report.records import StudyRecord
    from tts.tuning.study import Study as OpenStudy

_place = tyro.conf.arg(metavar="[STUDY]", help="Folder of the study; else --storage, or TTS_STORAGE.", help_behavior_hint="")
Looked = Annotated[Path | None, Folder("copied"), _place]
Changed = Annotated[Path | None, Folder("continued"), _place]
Places = Annotated[
    tuple[str, ...],
    tyro.conf.arg(metavar="[STUDY] FILE", help="Folder of the study (else --storage, or TTS_STORAGE), and the file.", help_behavior_hint=""),
]
Storage = Annotated[
    str | None, tyro.conf.arg(metavar="URL", help="Database of the study.", help_behavior_hint="(default TTS_STORAGE in the environment)")
]
Name = Annotated[
    str | None, tyro.conf.arg(metavar="NAME", help="Name of the study in the database.", help_behavior_hint="(default the only one there)")
]
Json = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Print JSON, as in study.json.", help_behavior_hint="")]


def show(folder: Looked = None, *, storage: Storage = None, study: Name = None, json: Json = False) -> None:
    """Show a study's trials, its best, what is left of its budget and who works on it."""
    from tts.tuning.keep.upkeep import alive
    from tts.tuning.report.records import record
    from tts.tuning.report.results import record_json

    opened = _find(folder, storage, study)
    results, workers = record(opened, importances=json), alive(opened)
    if json:
        print(json_format.dumps({**json_format.loads(record_json(results)), "workers_alive": workers}, indent=1, ensure_ascii=False))
    else:
        _print(results, workers)


def best(
    folder: Looked = None,
    *,
    storage: Storage = None,
    study: Name = None,
    trial: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help="Another completed trial, such as one of the Pareto set.", help_behavior_hint="")
    ] = None,
) -> None:
    """Print the best configuration as YAML that --config takes.

    With several objectives it is the compromise in the Pareto set; the set is listed above it.
    """
    from tts.tuning.report.records import record
    from tts.tuning.report.results import best_yaml

    results = record(_find(folder, storage, study), importances=False)
    print(best_yaml(results, trial), end="")


def export(places: Places, *, storage: Storage = None, study: Name = None) -> None:
    """Write all of a study into one JSON file.

    It holds the plan, every trial with its values, reports and attributes, and no password.
    """
    from tts.tuning.keep.archive import export_study

    given = _places("export", places, storage)
    with resolved(given, {"study": Folder("copied"), "file": Folder("made", "file")}, for_terminal()) as paths:
        made = export_study(_find(paths["study"], storage, study), paths["file"])
        print(f"exported: {len(made.trials)} trials of study {made.study} to {paths['file']}")


def import_(places: Places, *, storage: Storage = None, study: Name = None) -> None:
    """Give a study the trials of another one to start from.

    FILE is what `tts study export` wrote. Imported trials are no part of the budget and never the best; importing again adds none twice.
    """
    from tts.tuning.keep.archive import read_archive
    from tts.tuning.keep.warm_start import import_archive

    given = _places("import", places, storage)
    with resolved(given, {"study": Folder("continued"), "file": Folder("read", "file")}, for_terminal()) as paths:
        opened = _find(paths["study"], storage, study)
        print(import_archive(opened, read_archive(paths["file"])))


def extend(
    folder: Changed = None,
    *,
    storage: Storage = None,
    study: Name = None,
    trials: Annotated[int | None, tyro.conf.arg(metavar="INT", help="Finished trials in all.", help_behavior_hint="")] = None,
    gpu_hours: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help="Hours of training in all; 0: no limit.", help_behavior_hint="")] = None,
    hours: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help="Hours by the clock in all; 0: no limit.", help_behavior_hint="")] = None,
    plateau_trials: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help="Trials in a row without a better one; 0: no limit.", help_behavior_hint="")
    ] = None,
) -> None:
    """Set the budget that a study keeps; workers heed it at once.

    Values are totals, and may be lower than before. `tts tune` keeps them until its own configuration says something else than before.
    """
    from tts.tuning.keep.upkeep import extend as set_budget
    from tts.tuning.report.records import record

    opened = _find(folder, storage, study)
    given = {"trials": trials, "gpu_hours": gpu_hours, "hours": hours, "plateau_trials": plateau_trials}
    wanted = {name: value for name, value in given.items() if value is not None}
    before = set_budget(opened, wanted)
    for name, value in wanted.items():
        old = getattr(before.config.tuning, name)
        print(f"tuning.{name}: {value:g}, before {old:g}" + (" (lower)" if 0 < value < old else ""))
    spent = record(opened, importances=False).spent
    print(f"the study is over: {spent}" if spent else "the study goes on: `tts tune`, or `tts worker`, runs its trials")


def delete(
    folder: Changed = None,
    *,
    storage: Storage = None,
    study: Name = None,
    yes: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Really delete.", help_behavior_hint="")] = False,
    keep_trials: Annotated[
        bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Leave the folder of the trials' runs.", help_behavior_hint="")
    ] = False,
) -> None:
    """Delete a study from its database, and its trials' runs.

    Refuses while workers are alive. Tables and reports stay where `tts tune` wrote them.
    """
    from tts.tuning.keep.upkeep import delete as remove

    print(f"deleted: {remove(_find(folder, storage, study), sure=yes, keep_trials=keep_trials)}")


def _find(folder: Path | None, storage: str | None, name: str | None) -> "OpenStudy":
    from tts.tuning.keep.upkeep import find

    return find(folder, storage, name)


def _places(command: str, places: tuple[str, ...], storage: str | None) -> dict[str, str | None]:
    """The study's folder, where its database is not named, and the file. Raises UsageError."""
    from tts.tuning.database.address import STORAGE_VARIABLE, given_storage

    if len(places) == 2:
        return {"study": places[0], "file": places[1]}
    if len(places) == 1 and given_storage(storage):
        return {"study": None, "file": places[0]}
    got = " ".join(places) or "neither"
    raise UsageError(f"tts study {command} takes STUDY and FILE, or FILE and --storage URL (or {STORAGE_VARIABLE}), got {got}")


def _print(results: "StudyRecord", workers: list[str]) -> None:
    from rich.console import Console

    from tts.cli.study_table import tables

    console = Console()
    if not console.is_terminal:
        console.width = 10_000  # a file has room, and grep wants whole lines
    for part in tables(results, workers, console):
        console.print(part)


COMMANDS = (
    Command(show, "study show", taken=(), shown=(), folder=""),
    Command(best, "study best", taken=(), shown=(), folder=""),
    Command(export, "study export", taken=(), shown=(), folder=""),
    Command(import_, "study import", taken=(), shown=(), folder=""),
    Command(extend, "study extend", taken=(), shown=(), folder=""),
    Command(delete, "study delete", taken=(), shown=(), folder=""),
)
