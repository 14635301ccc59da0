"""diagnostics.json: what a report holds, for a machine. Its schema is schema.json."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tts.diagnostics.findings import Finding
from tts.diagnostics.findings.rule import median
from tts.diagnostics.measured import Measured
from tts.diagnostics.module_record import ModuleRecord
from tts.diagnostics.restart_record import Restart
from tts.diagnostics.run_record import RunRecord, Series
from tts.diagnostics.timing import step_seconds

FORMAT = 2
"""2: findings have a code, evidence and advice; restarts, modules, seconds_per_step and corpus; text_gain of snapshots."""


def document(record: RunRecord, measured: Sequence[Measured], statements: Sequence[Finding]) -> dict[str, Any]:
    """What an older run has no file for is null, or an empty list."""
    best = record.validation.lowest("mel_loss")
    return {
        "format": FORMAT,
        "run": record.run.resolve().name,
        "state": record.state,
        "step": record.step,
        "fingerprint": record.fingerprint,
        "totals": record.totals,
        "findings": [finding_values(finding) for finding in statements],
        "best": {"step": best[0], "mel_loss": best[1]} if best else None,
        "newest": {"train": _newest(record.train), "validation": _newest(record.validation)},
        "snapshots": [_snapshot(item) for item in measured],
        "anomalies": list(record.anomalies),
        "restarts": [_restart(restart) for restart in record.restarts],
        "modules": _modules(record.modules) if record.modules else None,
        "seconds_per_step": step_seconds(record) or None,
        "corpus": _corpus(record),
    }


def finding_values(finding: Finding) -> dict[str, Any]:
    """A finding as JSON."""
    return {
        "level": finding.level,
        "code": finding.code,
        "text": finding.text,
        "evidence": finding.evidence,
        "advice": finding.advice,
        "turns": [asdict(turn) for turn in finding.turns],
    }


def _newest(series: Series) -> dict[str, float] | None:
    return {"step": series.steps[-1], **{name: series.last(name) for name in series.columns}} if series else None


def _snapshot(item: Measured) -> dict[str, Any]:
    snapshot = item.snapshot
    return {
        "step": snapshot.step,
        "attention": item.attention_means,
        "gate": item.gate_means,
        "text_gain": snapshot.text_gain,
        "utterances": [
            {"id": identity, "text": text, "attention": attention, "gate": gate}
            for identity, text, attention, gate in zip(snapshot.ids, snapshot.texts, item.attention, item.gate, strict=True)
        ],
    }


def _restart(restart: Restart) -> dict[str, Any]:
    names = ("number", "trigger", "sentence", "evidence", "began_step", "noticed_step", "back_to_step")
    return {**{name: getattr(restart, name) for name in names}, "remedy": {knob: list(values) for knob, values in restart.remedy.items()}}


def _modules(modules: ModuleRecord) -> dict[str, Any]:
    """Medians over the lines, and how many values were not finite."""
    return {
        name: {
            "gradient_norm": median([value for value in values if math.isfinite(value)]),
            "update_ratio": median([value for value in modules.update_ratio.get(name, ()) if math.isfinite(value)]),
            "non_finite": sum(value for value in modules.non_finite.get(name, ()) if math.isfinite(value)),
        }
        for name, values in modules.gradient_norm.items()
    }


def _corpus(record: RunRecord) -> dict[str, Any] | None:
    corpus = record.corpus
    if corpus is None:
        return None
    reasons = None if corpus.rejected is None else dict(Counter(reason for _, reason in corpus.rejected))
    return {"utterances": corpus.utterances, "untrained_symbols": list(corpus.dead), "rejected": reasons}
