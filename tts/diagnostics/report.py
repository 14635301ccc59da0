"""What a training run did, for a machine (diagnostics.json) and for a person (diagnostics.html)."""

import importlib.resources
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts.diagnostics import course_sections, sections
from tts.diagnostics.document import document
from tts.diagnostics.findings import Finding, findings
from tts.diagnostics.measured import measure
from tts.diagnostics.page import Page, render
from tts.diagnostics.run_record import read_run
from tts.diagnostics.strict_json import to_json
from tts.storage import prepare_folder, write_text


@dataclass(frozen=True)
class Diagnosis:
    """Where the reports are, and what they begin with."""

    json: Path
    html: Path
    findings: tuple[Finding, ...]
    metrics: dict[str, float]
    """Newest validation metrics; values that are not finite included."""


def diagnose(run: Path, out: Path) -> Diagnosis:
    """Writes `diagnostics.json` and `diagnostics.html` into `out`, replacing older ones. Works on a run that is under way.

    Raises DataError when `run` is not a run folder or holds a damaged file, CannotWriteError.
    """
    prepare_folder(out)
    record = read_run(run)
    measured = [measure(path) for path in record.snapshots]
    statements = findings(record, measured[-1] if measured else None, earlier=measured[:-1])
    language, step = record.config.text.language, f"{record.state} at step {record.step:,}"
    page = Page(
        title="Diagnosis of a training run",
        subtitle=f"{record.run.resolve().name} · {language} · features {record.fingerprint} · {step}",
        sections=[
            sections.overview(record, statements),
            sections.training(record),
            *course_sections.restarts(record),
            sections.alignments(measured, record),
            sections.gates(measured, record),
            sections.predictions(measured, record),
            *course_sections.modules(record),
            *course_sections.timing(record),
            *course_sections.corpus(record),
            sections.anomalies(record),
        ],
    )
    write_text(out / "diagnostics.json", to_json(document(record, measured, statements)))
    write_text(out / "diagnostics.html", render(page))
    newest = {name: record.validation.last(name) for name in record.validation.columns}
    return Diagnosis(out / "diagnostics.json", out / "diagnostics.html", tuple(statements), newest)


def schema() -> dict[str, Any]:
    """JSON schema of diagnostics.json."""
    document: dict[str, Any] = json.loads(importlib.resources.files("tts.diagnostics").joinpath("schema.json").read_text(encoding="utf-8"))
    return document
