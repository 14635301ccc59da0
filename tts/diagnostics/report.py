"""What a training run did, for a machine (diagnostics.json) and for a person (diagnostics.html)."""

import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tts.diagnostics import sections
from tts.diagnostics.findings import Finding, findings
from tts.diagnostics.measured import Measured, measure
from tts.diagnostics.page import Page, render
from tts.diagnostics.run_record import RunRecord, Series, read_run
from tts.diagnostics.strict_json import to_json
from tts.storage import prepare_folder, write_text

FORMAT = 1


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
    statements = findings(record, measured[-1] if measured else None)
    language, step = record.config.text.language, f"{record.state} at step {record.step:,}"
    page = Page(
        title="Diagnosis of a training run",
        subtitle=f"{record.run.resolve().name} · {language} · features {record.fingerprint} · {step}",
        sections=[
            sections.overview(record, statements),
            sections.training(record),
            sections.alignments(measured, record),
            sections.gates(measured, record),
            sections.predictions(measured, record),
            sections.anomalies(record),
        ],
    )
    write_text(out / "diagnostics.json", to_json(_document(record, measured, statements)))
    write_text(out / "diagnostics.html", render(page))
    newest = {name: record.validation.last(name) for name in record.validation.columns}
    return Diagnosis(out / "diagnostics.json", out / "diagnostics.html", tuple(statements), newest)


def schema() -> dict[str, Any]:
    """JSON schema of diagnostics.json."""
    document: dict[str, Any] = json.loads(importlib.resources.files("tts.diagnostics").joinpath("schema.json").read_text(encoding="utf-8"))
    return document


def _document(record: RunRecord, measured: Sequence[Measured], statements: Sequence[Finding]) -> dict[str, Any]:
    best = record.validation.lowest("mel_loss")
    return {
        "format": FORMAT,
        "run": record.run.resolve().name,
        "state": record.state,
        "step": record.step,
        "fingerprint": record.fingerprint,
        "totals": record.totals,
        "findings": [asdict(finding) for finding in statements],
        "best": {"step": best[0], "mel_loss": best[1]} if best else None,
        "newest": {"train": _newest(record.train), "validation": _newest(record.validation)},
        "snapshots": [_snapshot(item) for item in measured],
        "anomalies": list(record.anomalies),
    }


def _newest(series: Series) -> dict[str, float] | None:
    return {"step": series.steps[-1], **{name: series.last(name) for name in series.columns}} if series else None


def _snapshot(item: Measured) -> dict[str, Any]:
    snapshot = item.snapshot
    return {
        "step": snapshot.step,
        "attention": item.attention_means,
        "gate": item.gate_means,
        "utterances": [
            {"id": identity, "text": text, "attention": attention, "gate": gate}
            for identity, text, attention, gate in zip(snapshot.ids, snapshot.texts, item.attention, item.gate, strict=True)
        ],
    }
