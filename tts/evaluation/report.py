"""`report.html`: the whole story of a voice on one page, from the recordings to the verdict."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tts import __version__
from tts.config import Config
from tts.data.store import FeatureStore
from tts.diagnostics import course_sections, sections
from tts.diagnostics.findings import findings
from tts.diagnostics.measured import measure
from tts.diagnostics.page import Cell, Fact, Facts, Note, Page, Section, Table, render, show
from tts.diagnostics.run_record import RunRecord, read_run
from tts.evaluation.configuration_section import configuration_section
from tts.evaluation.corpus_section import corpus_section
from tts.evaluation.sentences_section import Sample, listening_section, sentences_section
from tts.evaluation.study_section import study_section
from tts.evaluation.verdict import Verdict
from tts.storage import write_text

__all__ = ["Sample", "write_report"]

_CRITERIA = {
    "mel_cepstral_distortion": ("Mel-cepstral distortion", "dB"),
    "stopped_share": ("Sentences ended by the stop gate", ""),
    "attention_diagonality": ("Attention near the diagonal", ""),
}


def write_report(
    path: Path,
    *,
    run: Path,
    store: FeatureStore,
    study: Path | None,
    config: Config,
    step: int,
    samples: Sequence[Sample],
    figures: Mapping[str, float],
    verdict: Verdict,
) -> None:
    """Writes the page whole. `config` is the run's, with what the evaluation was told. Raises DataError (run, study), CannotWriteError."""
    record = read_run(run)
    measured = [measure(snapshot) for snapshot in record.snapshots]
    listed = samples[: config.evaluation.listed_sentences]
    minutes = f"{store.summary.seconds / 60:.1f} minutes of speech"
    page = Page(
        title="Voice report",
        subtitle=f"Tacotron 2 · {config.text.language} · {minutes} · spoken by the checkpoint of step {step:,}",
        badge=Cell("Passed", "good") if verdict.passed else Cell("Did not pass", "bad"),
        sections=[
            _summary(record, step, samples, figures, verdict),
            listening_section(listed, config),
            sentences_section(samples),
            corpus_section(store),
            study_section(study),
            sections.overview(record, findings(record, measured[-1] if measured else None, earlier=measured[:-1])),
            sections.training(record),
            *course_sections.restarts(record),
            sections.alignments(measured, record),
            sections.gates(measured, record),
            sections.anomalies(record),
            configuration_section(config),
        ],
        footer=(
            f"Smart Tuner TTS {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Features {store.fingerprint}, run {run.resolve().name}.",
            "This page holds everything it shows: pictures and sound are inside it, and it loads nothing from anywhere.",
        ),
    )
    write_text(path, render(page))


def _summary(record: RunRecord, step: int, samples: Sequence[Sample], figures: Mapping[str, float], verdict: Verdict) -> Section:
    failed = [_CRITERIA[criterion.name][0] for criterion in verdict.criteria if not criterion.passed]
    words = (
        f"The voice passed all {len(verdict.criteria)} criteria on {len(samples)} held-out sentences that it spoke on its own."
        if verdict.passed
        else f"The voice did not pass: {', '.join(failed)}. It spoke {len(samples)} held-out sentences on its own."
    )
    rows: tuple[tuple[str | Cell, ...], ...] = tuple(
        (
            _CRITERIA[criterion.name][0],
            _worded(criterion.name, criterion.value),
            f"{criterion.requirement} {_worded(criterion.name, criterion.threshold)}",
            Cell("passed", "good") if criterion.passed else Cell("failed", "bad"),
        )
        for criterion in verdict.criteria
    )
    stopped = sum(sample.judged.stop_reason == "gate" for sample in samples)
    facts = (
        Fact("Mel-cepstral distortion", show(figures["mel_cepstral_distortion"], unit="dB"), "0 is the recording itself"),
        Fact(
            "Ended by the gate",
            f"{stopped} of {len(samples)}",
            "the others ran into the length limit" if stopped < len(samples) else "none ran into the length limit",
        ),
        Fact("Attention near the diagonal", show(figures["attention_diagonality"]), "1 is all of it, uniform attention 0.28"),
        Fact("Length against recording", show(figures["duration_ratio"]), "1 is equally long"),
        *_heard(figures),
        Fact("Real-time factor", show(figures["real_time_factor"]), "time per second of speech, with Griffin-Lim"),
        Fact("Trained", f"{step:,} steps", f"best of {record.step:,} by held-out mel loss"),
    )
    table = Table(
        ("criterion", "measured", "required", "verdict"), rows, frozenset({"measured", "required"}), "A voice passes when it meets all of these."
    )
    return Section("summary", "Summary", blocks=(Note(words, "good" if verdict.passed else "bad"), Facts(facts), table))


def _heard(figures: Mapping[str, float]) -> tuple[Fact, ...]:
    """Of a voice with a recogniser."""
    rate = figures.get("recogniser_error_rate")
    return () if rate is None else (Fact("Letters that its recogniser gets wrong", show(rate), "of what was to be said; 0 is none"),)


def _worded(name: str, value: float) -> str:
    return f"{value:.0%}" if name == "stopped_share" else show(value, unit=_CRITERIA[name][1])
