"""`python -m tests.chaos`: what goes wrong, made to happen; figures in build/chaos.json, one flat object.

| part | what happens |
|---|---|
| `study` | one study under 100 SIGKILLs, restarts of its database and outages of its tracking server |
| `training` | short trainings under 200 SIGKILLs and SIGTERMs |
| `faults` | each fault of docs/recovery.md, injected with three seeds; `--table` prints that table instead |
| `guards` | nothing: what it costs a step that training watches itself, at most 1 % |

Parts that are named run alone, and then the other parts' figures stay as they are. Ends with exit code 1 when a figure is not what it must be. Logs,
the study and the runs stay in build/chaos until the next time.
"""

import argparse
import json
import logging
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import tests.chaos.faults.show
import tests.chaos.plan
import tests.chaos.show
import tests.chaos.training.show
from tests.benchmarks import guards
from tests.chaos.faults.catalogue import FAULTS
from tests.chaos.faults.table import table
from tests.chaos.verdict import Verdict
from tts.errors import INTERRUPTED
from tts.progress import Progress, for_terminal
from tts.storage import write_text
from tts.threads import wait_patiently

RESULTS = Path("build") / "chaos.json"
FOLDER = Path("build") / "chaos"
GUARDS_SHARE = 0.01
"""Of a step: what checks for health, and diagnostics, may take."""
SHOWN = 40
"""Lines about what is wrong."""


def _study(folder: Path, seed: int, progress: Progress) -> Verdict:
    return tests.chaos.show.show(replace(tests.chaos.plan.FULL, seed=seed), folder, progress)


def _training(folder: Path, seed: int, progress: Progress) -> Verdict:
    return tests.chaos.training.show.show(replace(tests.chaos.training.show.FULL, seed=seed), folder, progress)


def _guards(_folder: Path, _seed: int, _progress: Progress) -> Verdict:
    figures = guards.measure()
    share = figures["guards_share_of_step"]
    return Verdict(figures, (f"guards take {share:.2%} of a step, more than {GUARDS_SHARE:.0%}",) if share > GUARDS_SHARE else ())


PARTS: dict[str, Callable[[Path, int, Progress], Verdict]] = {
    "study": _study,
    "training": _training,
    "faults": tests.chaos.faults.show.show,
    "guards": _guards,
}
"""Each plays in a folder of its own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays the parts, shows the figures and says what is wrong."""
    wait_patiently()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nobody is left
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")  # progress, where this is no terminal
    torch.set_num_threads(1)
    asked = _parser().parse_args(arguments)
    if asked.table:
        sys.stdout.write(table(FAULTS))
        return 0
    console, figures, wrong = Console(stderr=True), dict[str, float](), list[str]()
    for part in asked.parts or PARTS:
        folder = (FOLDER / part).resolve()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        console.print(f"{part}: seed {asked.seed}; logs in {FOLDER / part}")
        try:
            verdict = PARTS[part](folder, asked.seed, for_terminal())
        except KeyboardInterrupt:
            console.print("interrupted; nobody is left")
            return INTERRUPTED
        figures |= verdict.figures
        wrong += verdict.wrong
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if asked.parts and RESULTS.exists() else {}
        write_text(RESULTS, json.dumps(kept | figures, indent=2) + "\n")
    _say(console, figures, wrong)
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Makes things go wrong, and counts what is lost.")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=f"one of {', '.join(PARTS)}; all of them by default")
    parser.add_argument("--seed", type=int, default=0, help="of what is hit, and when")
    parser.add_argument("--table", action="store_true", help="print the table of faults that stands in docs/recovery.md, and do nothing else")
    return parser


def _say(console: Console, figures: dict[str, float], wrong: list[str]) -> None:
    shown = Table("figure", "value", box=None, pad_edge=False)
    for name, value in figures.items():
        shown.add_row(name, f"{value:g}")
    console.print(shown)
    for line in wrong[:SHOWN]:
        console.print(f"wrong: {line}", style="red", markup=False, highlight=False)
    if len(wrong) > SHOWN:
        console.print(f"... and {len(wrong) - SHOWN} more")
    console.print(f"{RESULTS}: " + (f"{len(wrong)} things are wrong" if wrong else "all as it must be"))


if __name__ == "__main__":
    sys.exit(main())
