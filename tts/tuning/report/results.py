"""What a study leaves behind: `study.json`, `trials.csv`, `best.yaml` and, with several objectives, `pareto.csv`."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tts.errors import DataError, UsageError
from tts.storage import write_text
from tts.tuning.report.records import StudyRecord, TrialRecord, record

__all__ = ["StudyRecord", "best_yaml", "is_current", "record", "record_json", "write_tables"]


def is_current(folder: Path, results: StudyRecord) -> bool:
    """Whether the folder holds these results already, the page included."""
    file = folder / "study.json"
    return (folder / "study.html").is_file() and file.is_file() and file.read_text(encoding="utf-8") == record_json(results)


def write_tables(folder: Path, results: StudyRecord) -> None:
    """Writes the tables, best.yaml where a trial completed, and study.json. An older page goes, so that it is made anew. Raises CannotWriteError."""
    (folder / "study.html").unlink(missing_ok=True)
    write_text(folder / "trials.csv", _csv(results, results.trials))
    if results.several:
        write_text(folder / "pareto.csv", _csv(results, [trial for trial in results.trials if trial.number in results.pareto]))
    if results.best:
        write_text(folder / "best.yaml", best_yaml(results))
    write_text(folder / "study.json", record_json(results))


def record_json(results: StudyRecord) -> str:
    """`study.json`: no NaN, no password."""
    return json.dumps(results.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def best_yaml(results: StudyRecord, number: int | None = None) -> str:
    """The searched knobs of the best trial, or of the completed one `number`, as `--config` takes them; above them what they reached.

    Raises:
        UsageError: That trial has not completed.
        DataError: None has.
    """
    if number is None and results.best is None:
        raise DataError(f"no trial of study {results.name!r} has completed, so there is no best one")
    wanted = results.best.number if number is None and results.best else number
    trial = next((trial for trial in results.trials if trial.number == wanted and trial.values), None)
    if trial is None:
        completed = ", ".join(str(trial.number) for trial in results.trials if trial.values)
        there = any(trial.number == number for trial in results.trials)
        what = f"trial {number} of study {results.name!r} has not completed" if there else f"study {results.name!r} has no trial {number}"
        raise UsageError(f"{what}; completed are {completed or 'none'}")
    lines = [f"Trial {trial.number} of study {results.name}: {_reached(results, trial)}. Use it with --config."]
    if results.several:
        lines += [f"Pareto set: trial {other.number}: {_reached(results, other)}" for other in results.trials if other.number in results.pareto]
    return "".join(f"# {line}\n" for line in lines) + yaml.safe_dump(_nested(trial.params), sort_keys=False)


def _reached(results: StudyRecord, trial: TrialRecord) -> str:
    names = results.objectives if results.several else ["objective"]
    return ", ".join(f"{name} {value:.6g}" for name, value in zip(names, trial.values, strict=True))


def _csv(results: StudyRecord, trials: Sequence[TrialRecord]) -> str:
    params = list(dict.fromkeys(name for trial in results.trials for name in trial.params))
    metrics = list(dict.fromkeys(name for trial in results.trials for name in trial.metrics))
    values = [f"value.{name}" for name in results.objectives] if results.several else ["value"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["number", "state", *values, *params, *metrics, "last_step", "seconds", "worker", "interruptions", "imported", "reason"])
    for trial in trials:
        figures: Sequence[float | None] = trial.values or [None] * len(values)
        known = [*(trial.params.get(name) for name in params), *(trial.metrics.get(name) for name in metrics)]
        last = [trial.step or None, trial.seconds, trial.worker, len(trial.interruptions), trial.imported, trial.reason]
        writer.writerow([trial.number, trial.state, *figures, *known, *last])
    return file.getvalue()


def _nested(params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for path, value in params.items():
        section, name = path.split(".")
        nested.setdefault(section, {})[name] = value
    return nested
