"""Where a step's time went: loading its batch, forward, backward, update."""

import math

from tts.diagnostics.findings.course import PHASES
from tts.diagnostics.findings.rule import median
from tts.diagnostics.run_record import RunRecord


def step_seconds(record: RunRecord) -> dict[str, float]:
    """Seconds of a step by phase, medians over the log lines; empty where the run did not measure them."""
    columns = {phase: record.train.columns.get(f"{phase}_seconds", ()) for phase in PHASES}
    medians = {phase: median([value for value in values if math.isfinite(value)]) for phase, values in columns.items()}
    return {phase: value for phase, value in medians.items() if math.isfinite(value)}
