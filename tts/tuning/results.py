"""What a study leaves behind: `study.json`, `trials.csv`, `best.yaml` and, with several objectives, `pareto.csv`."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tts.storage import write_text
from tts.tuning.records import StudyRecord, TrialRecord, record

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
        write_text(folder / "best.yaml", best_yaml(results, results.best.number))
    write_text(folder / "study.json", record_json(results))


def record_json(results: StudyRecord) -> str:
    """`study.json`: no NaN, no password."""
    return json.dumps(results.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def best_yaml(results: StudyRecord, number: int) -> str:
    """The searched knobs of a completed trial, as `--config` takes them."""
    trial = next(trial for trial in results.trials if trial.number == number)
    figures = ", ".join(f"{name} {value:.6g}" for name, value in zip(results.objectives, trial.values, strict=True))
    what = figures if results.several else f"objective {trial.values[0]:.6g}"
    head = f"# Trial {number} of study {results.name}: {what}. Use it with --config.\n"
    return head + yaml.safe_dump(_nested(trial.params), sort_keys=False)


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
