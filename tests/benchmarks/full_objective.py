"""The whole objective (both decoders, guided attention, mutual information) against the textbook double decoder without mutual information.

A whole training step as in tests/benchmarks/decoder.py, on the same batch, preset `full`: reduction factors 1 and 6. The two are timed in turn
in one process.

    python -m tests.benchmarks.full_objective
"""

import json
import os
import sys

import torch

from tests.benchmarks.decoder import in_turn, training_step
from tts.config.load import override
from tts.config.presets import full


def measure() -> dict[str, float]:
    """Medians of seconds a step, and their ratio: above 1 speaks for ours."""
    plain = override(full(), {"model.recogniser": 0, "model.frame_drop": 0.0})
    typical = in_turn({"ours": training_step("ours", full()), "textbook": training_step("textbook", plain)})
    return {
        "full_objective_speedup": typical["textbook"] / typical["ours"],
        "full_objective_step_seconds": typical["ours"],
        "full_objective_textbook_step_seconds": typical["textbook"],
    }


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
