"""restarts/NN: what a restart left behind, kept to look at.

| name | holds |
|---|---|
| `restart.json` | Restart (ladder.py); there once the rest is |
| `metrics.jsonl`, `modules.jsonl` | the lines after the step to which the run went back |
| `snapshots/`, `anomalies/` | the same of their files |
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from tts.errors import DataError
from tts.storage import clear_partial, reporting, write_text
from tts.training.recovery.ladder import Restart

LOGS = ("metrics.jsonl", "modules.jsonl")
FOLDERS = ("snapshots", "anomalies")
RECORD = "restart.json"


def folder_of(run: Path, number: int) -> Path:
    """Where a restart's files are."""
    return run / "restarts" / f"{number:02d}"


def set_aside(run: Path, restart: Restart) -> None:
    """Moves what came after the restart's step into its folder. Does nothing where it is done; goes on where a kill left it. Raises CannotWriteError.

    Only for a run that stands at that step.
    """
    folder, step = folder_of(run, restart.number), restart.back_to_step
    if (folder / RECORD).exists():
        return
    clear_partial(folder)
    for name in LOGS:
        lines = [line for line in _whole_lines(run / name) if _step_of(line) > step]
        if lines:
            write_text(folder / name, b"".join(lines).decode())
    for name in FOLDERS:
        for path in sorted((run / name).glob("step-*")):
            if number_of(path) > step:
                with reporting(folder / name):
                    (folder / name).mkdir(parents=True, exist_ok=True)
                    path.replace(folder / name / path.name)
    write_text(folder / RECORD, json.dumps(restart.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def drop_after(run: Path, number: int) -> None:
    """Removes the folders of restarts after that one: the run stands before them, and makes them again or not."""
    for path in run.glob("restarts/*"):
        if path.name.isdigit() and int(path.name) > number:
            shutil.rmtree(path)


def read_restarts(run: Path) -> list[Restart]:
    """By number. Raises DataError."""
    return [_read(path) for path in sorted(run.glob(f"restarts/*/{RECORD}"))]


def number_of(path: Path) -> int:
    """The step in a name such as step-00000012.json; 0 where there is none."""
    found = re.fullmatch(r"step-(\d+)\..+", path.name)
    return int(found[1]) if found else 0


def _read(path: Path) -> Restart:
    try:
        return Restart.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} does not hold a restart ({' '.join(str(error).split())[:200]}); restore it from a copy, or remove its folder"
        ) from None


def _whole_lines(path: Path) -> Iterator[bytes]:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return (line for line in lines if line.endswith(b"\n"))


def _step_of(line: bytes) -> int:
    return int(json.loads(line)["step"])
