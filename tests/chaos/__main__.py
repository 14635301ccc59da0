"""`python -m tests.chaos`: one study under 100 SIGKILLs, restarts of its database and outages of its tracking server; figures in build/chaos.json.

Ends with exit code 1 when a figure is not what it must be. Logs and the study stay in build/chaos until the next time.
"""

import json
import logging
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tests.chaos.plan import FULL
from tests.chaos.show import show
from tts.errors import INTERRUPTED
from tts.progress import for_terminal
from tts.storage import write_text
from tts.threads import wait_patiently

RESULTS = Path("build") / "chaos.json"
FOLDER = Path("build") / "chaos"
SHOWN = 40
"""Lines about what is wrong."""


def main() -> int:
    """Plays, shows the figures and says what is wrong."""
    wait_patiently()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nobody is left
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")  # progress, where this is no terminal
    torch.set_num_threads(1)
    console = Console(stderr=True)
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else FULL.seed
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    console.print(f"{FULL.trials} trials, {FULL.kills} kills, seed {seed}; logs in {FOLDER}")
    try:
        verdict = show(replace(FULL, seed=seed), FOLDER.resolve(), for_terminal())
    except KeyboardInterrupt:
        console.print("interrupted; nobody is left")
        return INTERRUPTED
    write_text(RESULTS, json.dumps(verdict.figures, indent=2) + "\n")
    table = Table("figure", "value", box=None, pad_edge=False)
    for name, value in verdict.figures.items():
        table.add_row(name, f"{value:g}")
    console.print(table)
    for line in verdict.wrong[:SHOWN]:
        console.print(f"wrong: {line}", style="red", markup=False, highlight=False)
    if len(verdict.wrong) > SHOWN:
        console.print(f"... and {len(verdict.wrong) - SHOWN} more")
    console.print(f"{RESULTS}: " + (f"{len(verdict.wrong)} things are wrong" if verdict.wrong else "all as it must be"))
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
