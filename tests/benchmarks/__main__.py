"""`python -m tests.benchmarks`: every benchmark in a process of its own, all figures in build/bench.json.

A figure below its target does not fail the run: timings on a shared machine are for a person to judge.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tts.storage import write_text
from tts.threads import wait_patiently

BENCHMARKS = (
    "features",
    "decoder",
    "full_objective",
    "mixed_length",
    "guards",
    "synthesis",
    "long_utterances",
    "gpu",
    "study_start",
    "study_rate",
    "worker",
)
ON_A_CLUSTER = ("launcher", "trial_pod")
"""Run where KUBECONFIG names one."""
RESULTS = Path("build") / "bench.json"
TARGETS = {
    "feature_rate_vs_librosa": (">=", 2.0),
    "demo_corpus_seconds": ("<=", 20.0),
    "decoder_speedup": (">=", 2.3),
    "train_step_peak_gib": ("<=", 1.8),
    "full_objective_speedup": (">=", 1.8),
    "mixed_length_speedup": (">=", 2.8),
    "guards_share_of_step": ("<=", 0.01),
    "synthesis_speedup": (">=", 3.0),
    "gpu_speedup": (">=", 5.0),
    "long_utterance_time_per_frame": ("<=", 1.1),
    "long_utterance_memory_growth": ("<=", 1.1),
    "decoder_memory_ratio": ("<=", 1.0),
    "sqlite_fresh_start_alive_of_16": (">=", 16),
    "postgresql_fresh_start_alive_of_16": (">=", 16),
    "trials_rate_vs_optuna_postgresql": (">=", 1.0),
    "trials_rate_vs_optuna_sqlite": (">=", 1.0),
    "trials_rate_vs_optuna_sqlite_wal": (">=", 1.0),
    "hyperband_rate_vs_optuna": (">=", 2.0),
    "hyperband_rate_postgresql": (">=", 5.0),
    "worker_overhead_share": ("<=", 0.02),
    "worker_memory_growth_over_50_trials": ("<=", 5.0),
    "launcher_poll_cpu_seconds": ("<=", 1.0),
    "launcher_memory_growth": ("<=", 5.0),
    "trial_pod_overhead_seconds": ("<=", 15.0),
    "trial_pod_gap_seconds": ("<=", 1.0),
}


def main() -> int:
    """Runs them one after the other, so that none disturbs another."""
    wait_patiently()  # as in the product: children inherit it
    console = Console()
    figures: dict[str, float] = {}
    for name in (*BENCHMARKS, *(ON_A_CLUSTER if os.environ.get("KUBECONFIG") else ())):
        console.print(f"measuring {name} ...")
        output = subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=True, stdout=subprocess.PIPE, text=True).stdout
        figures |= json.loads(output)
    write_text(RESULTS, json.dumps(figures, indent=2) + "\n")
    table = Table("figure", "value", "target", "reached", box=None, pad_edge=False)
    for name, value in figures.items():
        sign, target = TARGETS.get(name, ("", 0.0))
        reached = "" if not sign else "yes" if (value >= target if sign == ">=" else value <= target) else "NO"
        table.add_row(name, f"{value:.4g}", f"{sign} {target:g}" if sign else "", reached)
    console.print(table)
    console.print(f"{RESULTS}, on {len(os.sched_getaffinity(0))} cores")
    return 0


if __name__ == "__main__":
    sys.exit(main())
