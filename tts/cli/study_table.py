"""What `tts study show` prints."""

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tts.tuning.report.records import StudyRecord, TrialRecord
from tts.tuning.report.snapshot import figures

SHOWN = 5
"""Workers that ended early, and reasons for waiting, the last ones."""
COLOURS = {"complete": "green", "pruned": "yellow", "fail": "red", "running": "cyan", "waiting": "magenta"}


def tables(results: StudyRecord, workers: Sequence[str], console: Console) -> Iterator[RenderableType]:
    """A head of a few lines, then the trials by number, with as many knobs as there is room for."""
    yield Text(f"study {results.name} in {results.storage}", style="bold")
    yield Text(f"trials: {', '.join(f'{number} {state}' for state, number in results.counts.items()) or 'none'}")
    for limit in results.budgets:
        yield Text(f"tuning.{limit.knob}: {limit.used:.4g} of {limit.limit:g}, {limit.left:.4g} left")
    yield Text(f"over: {results.spent}" if results.spent else "over: not yet")
    yield Text(f"workers alive: {len(workers)}" + (f" ({', '.join(workers)})" if workers else ""))
    for ended in results.fleet.ended[-SHOWN:]:
        yield Text(f"ended early: {ended.worker} {ended.reason}", style="red")
    for line in results.fleet.waits[-SHOWN:] if not results.spent else ():
        yield Text(f"waited for: {line}", style="yellow")
    yield Text(_best(results))
    if not results.trials:
        return
    knobs = _varying(results)
    table = _trials(results, knobs)
    roomy = console.options.update(width=10_000)
    while knobs and console.measure(table, options=roomy).maximum > console.width:
        knobs = knobs[:-1]
        table = _trials(results, knobs)
    yield Text("")
    yield table
    if left := len(_varying(results)) - len(knobs):
        yield Text(f"{left} more knobs vary: --json, or a wider terminal, shows them")


def _best(results: StudyRecord) -> str:
    best = results.best
    if best is None:
        return "best: no trial has completed"
    if results.several:
        numbers = ", ".join(str(number) for number in results.pareto)
        return f"Pareto set: trials {numbers}; compromise: trial {best.number}, {figures(results, best.values)}"
    return f"best: trial {best.number}, {figures(results, best.values)}"


def _trials(results: StudyRecord, knobs: Sequence[str]) -> Table:
    heads = results.objectives if results.several else ["value"]
    table = Table(box=None, pad_edge=False)
    for name in ("trial", "state", *heads, *(knob.split(".", 1)[1] for knob in knobs), "step", "seconds", "reason"):
        table.add_column(
            name, justify="left" if name in ("state", "reason") else "right", no_wrap=name != "reason", max_width=60 if name == "reason" else None
        )
    for trial in results.trials:
        values = [f"{value:.5g}" for value in trial.values] or ["-"] * len(heads)
        params = [_short(trial.params.get(knob)) for knob in knobs]
        state = Text(f"imported {trial.state}" if trial.imported else trial.state, style=COLOURS[trial.state])
        seconds = "-" if trial.seconds is None else f"{trial.seconds:.1f}"
        table.add_row(str(trial.number), state, *values, *params, str(trial.step) if trial.step else "-", seconds, _reason(trial, results))
    return table


def _varying(results: StudyRecord) -> list[str]:
    """Knobs that differ between trials: the others tell nothing here."""
    names = list(dict.fromkeys(name for trial in results.trials for name in trial.params))
    return [name for name in names if len(results.trials) == 1 or len({trial.params.get(name) for trial in results.trials}) > 1]


def _reason(trial: TrialRecord, results: StudyRecord) -> str:
    if trial.imported:
        return f"from study {trial.imported}"
    if trial.reason:
        return trial.reason
    if trial.interruptions:
        return f"{len(trial.interruptions)} x interrupted, last: {trial.interruptions[-1]}"
    best = results.best and trial.number == results.best.number
    return "best" if best else "Pareto set" if trial.number in results.pareto else ""


def _short(value: object) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
