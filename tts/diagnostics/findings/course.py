"""Conditions on how a run went: its state, what was skipped, where it went back, memory, and where its time went."""

import math
from collections import Counter

from tts.diagnostics.findings.rule import Facts, Match, Turn, late, match, median

REPEATED = 2
"""Skipped updates in which an utterance is named among the offenders, from which on it is suspected."""
NAMED = 3
"""Utterances, symbols or modules that a sentence names."""
SLOW_DATA = 0.15
"""Share of a step's time that loading data may take."""
OF_THE_MOMENT = ("training.seed", "guided_attention.hold_steps")
"""Knobs of a remedy that suit the step of the restart, and no run from the start."""
PHASES = ("data", "forward", "backward", "update")


def finished(facts: Facts) -> Match | None:
    """All steps were made."""
    return match(steps=facts.record.config.training.steps) if facts.record.state == "finished" else None


def diverged(facts: Facts) -> Match | None:
    """Training gave up."""
    return _state(facts) if facts.record.state == "diverged" else None


def unfinished(facts: Facts) -> Match | None:
    """Under way, or stopped."""
    return None if facts.record.state in {"finished", "diverged"} else _state(facts)


def _state(facts: Facts) -> Match:
    return match(step=facts.record.step, steps=facts.record.config.training.steps, words={"state": facts.record.state})


def nothing_skipped(facts: Facts) -> Match | None:
    """Every update was finite."""
    return None if facts.record.totals.get("skipped_updates") else match(skipped_updates=0)


def skipped(facts: Facts) -> Match | None:
    """Updates were skipped; the first offender, where it was kept."""
    count, anomalies = int(facts.record.totals.get("skipped_updates", 0)), facts.record.anomalies
    if not count:
        return None
    first = f"; the first, at step {anomalies[0]['step']:,}, began in {anomalies[0]['name']}" if anomalies else ""
    return match(skipped_updates=count, words={"first": first})


def same_utterance(facts: Facts) -> Match | None:
    """One recording is among the offenders again and again: of anomalies that could tell utterances of a batch apart."""
    apart = [set(item["utterances"]) for item in facts.record.anomalies if len(item["utterances"]) < len(item.get("batch", ()))]
    counts = Counter(identity for named in apart for identity in named)
    often = [(identity, count) for identity, count in counts.most_common() if count >= REPEATED and count == counts.most_common(1)[0][1]]
    if not often:
        return None
    return match(skipped_updates=often[0][1], told_apart=len(apart), utterances=len(often), words={"names": listed([name for name, _ in often])})


def restarted(facts: Facts) -> Match | None:
    """The run went back to a checkpoint, and changed knobs for good."""
    restarts = facts.record.restarts
    if not restarts:
        return None
    last = restarts[-1]
    steps = sum(max(0, restart.noticed_step - restart.back_to_step) for restart in restarts)
    turns = tuple(Turn(knob, "set", _value(after)) for knob, (_, after) in last.remedy.items() if knob not in OF_THE_MOMENT)
    words = {"times": often(len(restarts)), "why": last.sentence.rstrip("."), "trigger": last.trigger, "changes": last.changes}
    return match(turns=turns, words=words, restarts=len(restarts), noticed_step=last.noticed_step, back_to_step=last.back_to_step, lost_steps=steps)


def _value(value: object) -> float | str:
    return float(value) if isinstance(value, int | float) else str(value)


def budget_halved(facts: Facts) -> Match | None:
    """A device ran out of memory."""
    times = int(facts.record.totals.get("frame_budget_halvings", 0))
    if not times:
        return None
    budget = facts.record.config.data.frame_budget
    fitting = budget // 2**times
    turns = (Turn("data.frame_budget", "set", fitting),)
    return match(turns=turns, words={"times": often(times)}, halvings=times, frame_budget=budget, fitting=fitting)


def data_slow(facts: Facts) -> Match | None:
    """Steps wait for their batches."""
    seconds = {phase: median(late(facts.record.train, f"{phase}_seconds")) for phase in PHASES}
    total = sum(seconds.values())
    if not math.isfinite(total) or total <= 0 or seconds["data"] / total <= SLOW_DATA:
        return None
    return match(data_share=seconds["data"] / total, data_seconds=seconds["data"], step_seconds=total)


def often(times: int) -> str:
    """As people say it."""
    return "once" if times == 1 else f"{times:,} times"


def listed(names: list[str]) -> str:
    """The first few names as words."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
