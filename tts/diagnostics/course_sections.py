"""Parts of a report that tell how a run went: restarts, parts of the network, time, and the corpus. Each is left out where its file is missing."""

from collections import Counter

from tts.diagnostics.corpus_record import CorpusRecord
from tts.diagnostics.course_pictures import module_heat, timing_shares
from tts.diagnostics.findings.course import often
from tts.diagnostics.page import Block, Cell, Fact, Facts, Note, Picture, Pictures, Section, Table, show
from tts.diagnostics.run_record import RunRecord
from tts.diagnostics.timing import step_seconds

RARE = 5
"""Occurrences in the texts that are trained on, up to which a symbol is listed."""
REJECTED_LISTED = 200
WORDS = {"data": "loading data", "forward": "forward pass", "backward": "backward pass", "update": "update"}


def restarts(record: RunRecord) -> tuple[Section, ...]:
    """Where the run went back to a healthy checkpoint, and where batches had to shrink."""
    halvings = int(record.totals.get("frame_budget_halvings", 0))
    if not record.restarts and not halvings:
        return ()
    blocks: list[Block] = []
    if record.restarts:
        columns = ("number", "why", "began", "noticed", "back to", "what was found", "what it changed")
        rows: tuple[tuple[str | Cell, ...], ...] = tuple(
            (
                f"{restart.number}", restart.trigger, f"{restart.began_step:,}", f"{restart.noticed_step:,}", f"{restart.back_to_step:,}",
                restart.sentence, restart.changes,
            )
            for restart in record.restarts
        )  # fmt: skip
        blocks.append(Table(columns, rows, frozenset({"number", "began", "noticed", "back to"})))
    if halvings:
        budget = record.config.data.frame_budget
        words = f"The device ran out of memory {often(halvings)}: batches shrank from {budget:,} to "
        blocks.append(Note(f"{words}{budget // 2**halvings:,} frames.", "warning"))
    intro = "Training that went wrong goes back to a checkpoint that was proven healthy, changes what the ladder of remedies says, and goes on."
    return (Section("restarts", "Restarts", intro, tuple(blocks)),)


def modules(record: RunRecord) -> tuple[Section, ...]:
    """Gradients and updates of each part of the network over the steps."""
    if record.modules is None:
        return ()
    pictures = tuple(
        Picture(svg, caption, title)
        for title, svg, caption in (
            (
                "Gradient norm",
                module_heat(record.modules.steps, record.modules.gradient_norm, "Gradient norm", log=True),
                "Before clipping. A dark row learns little, a row that turns bright explodes. Grey: no gradient, or one that was not finite.",
            ),
            (
                "Update ratio",
                module_heat(record.modules.steps, record.modules.update_ratio, "Update ratio", log=True),
                "What a step adds to the weights, over their size; 0.001 to 0.01 is usual. Grey: nothing was updated.",
            ),
        )
    )
    broken = {name: sum(value > 0 for value in values) for name, values in record.modules.non_finite.items()}
    notes = tuple(
        Note(f"{name}: gradients were not finite in {count:,} of {len(record.modules.steps):,} logged steps.", "bad")
        for name, count in broken.items()
        if count
    )
    return (Section("modules", "Parts of the network", "How strongly each part is pulled, and how far it moves.", (Pictures(pictures, 2), *notes)),)


def timing(record: RunRecord) -> tuple[Section, ...]:
    """Shares of a step's time."""
    seconds = step_seconds(record)
    total = sum(seconds.values())
    if not seconds or total <= 0:
        return ()
    facts = tuple(Fact(WORDS[phase].capitalize(), f"{value / total:.0%}", f"{show(1000 * value)} ms of a step") for phase, value in seconds.items())
    picture = Picture(timing_shares(record.train), "Shares of a step's time, stacked; each point is a mean over the steps of a log line.")
    intro = f"A step takes {show(1000 * total)} ms, a median over the run. Where loading data takes more than a few per cent, steps wait for it."
    return (Section("timing", "Time", intro, (Facts(facts), Pictures((picture,)))),)


def corpus(record: RunRecord) -> tuple[Section, ...]:
    """Symbols that are hardly trained, and clips that were left out."""
    found = record.corpus
    if found is None:
        return ()
    facts = [Fact(name.replace("_", " ").capitalize(), f"{count:,}") for name, count in found.utterances.items()]
    blocks: list[Block] = [_rare(found)]
    if found.rejected is not None:
        facts.append(Fact("Clips left out", f"{len(found.rejected):,}", tone="warning" if found.rejected else "good"))
        blocks += _rejected(found.rejected)
    return (Section("corpus", "Corpus", "What the run was given to train on.", (Facts(tuple(facts)), *blocks)),)


def _rare(found: CorpusRecord) -> Block:
    rare = sorted((count, symbol) for symbol, count in found.training.items() if count <= RARE)
    if not rare:
        return Note(f"Each of {len(found.training)} symbols occurs more than {RARE} times in the texts that are trained on.", "good")
    rows: tuple[tuple[str | Cell, ...], ...] = tuple(
        (f"“{symbol}”", Cell(f"{count}", _tone(found, symbol, count)), f"{found.held_out.get(symbol, 0)}") for count, symbol in rare
    )
    caption = f"Symbols that occur at most {RARE} times in the texts that are trained on. One that never does is dead: its vector stays as it began."
    return Table(("symbol", "trained on", "held out"), rows, frozenset({"trained on", "held out"}), caption)


def _tone(found: CorpusRecord, symbol: str, count: int) -> str:
    """Bad where the voice would have to say, or is held out with, what it never learns."""
    return "bad" if not count and (symbol in found.dead or found.held_out.get(symbol, 0)) else ""


def _rejected(rejected: tuple[tuple[str, str], ...]) -> list[Block]:
    if not rejected:
        return []
    reasons = Counter(reason for _, reason in rejected)
    counts: tuple[tuple[str | Cell, ...], ...] = tuple((reason.replace("_", " "), f"{count:,}") for reason, count in reasons.most_common())
    listed: tuple[tuple[str | Cell, ...], ...] = tuple((identity, reason.replace("_", " ")) for identity, reason in rejected[:REJECTED_LISTED])
    more = f", the first {REJECTED_LISTED}" if len(rejected) > REJECTED_LISTED else ""
    return [
        Table(("reason", "clips"), counts, frozenset({"clips"}), "Clips that were left out, by reason."),
        Table(("clip", "reason"), listed, caption=f"Each of them{more}", foldable=True),
    ]
