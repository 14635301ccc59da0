"""What a reader should know first: statements that follow from a run's figures, each with the figures it rests on and what can be done.

The rules stand in one table, rules.py.
"""

from collections.abc import Sequence

from tts.diagnostics.findings.rule import Facts, Finding, Rule, Turn
from tts.diagnostics.findings.rules import RULES
from tts.diagnostics.measured import Measured
from tts.diagnostics.run_record import RunRecord

__all__ = ["RULES", "Finding", "Rule", "Turn", "findings"]


def findings(record: RunRecord, last: Measured | None, *, earlier: Sequence[Measured] = ()) -> list[Finding]:
    """Bad news first. `last` is the newest snapshot, `earlier` are those before it, as far as they were read."""
    facts = Facts(record, last, tuple(earlier))
    found = [finding for rule in RULES if (finding := rule.applied(facts))]
    order: Sequence[str] = ("bad", "warning", "good")
    return sorted(found, key=lambda finding: order.index(finding.level))
