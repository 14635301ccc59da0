"""An evaluation that the tests of its files share."""

import json
from pathlib import Path
from typing import Any

import pytest

from tts.config import Config
from tts.config.load import override
from tts.evaluation.evaluate import evaluate
from tts.progress import Silent


def trial(number: int, state: str, values: list[float], *, rate: float = 1e-3, reason: str = "") -> dict[str, Any]:
    """A trial as study.json has it."""
    return {
        "number": number, "state": state, "value": values[-1] if state == "complete" else None,
        "params": {"optimiser.learning_rate": rate, "data.frame_budget": 4000}, "metrics": {},
        "intermediate": [[10 * place + 10, value] for place, value in enumerate(values)],
        "start": None, "end": None, "seconds": 3.5, "reason": reason, "log": "", "interruptions": [],
    }  # fmt: skip


def write_study(folder: Path, trials: list[dict[str, Any]], *, best: int | None, importances: dict[str, float] | None = None) -> Path:
    """A study's folder with the file that the report reads."""
    chosen = next((entry for entry in trials if entry["number"] == best), None)
    states = [entry["state"] for entry in trials]
    terms = [
        {"metric": "mel_loss", "weight": 1.0, "direction": "minimise"},
        {"metric": "attention_diagonality", "weight": 2.0, "direction": "maximise"},
    ]
    results = {
        "name": "tacotron2", "direction": "minimise", "objective": terms, "features": "f", "storage": "s", "budget": 4, "steps": 30, "sampler": "tpe",
        "pruner": "hyperband", "counts": {state: states.count(state) for state in set(states)}, "trials": trials, "importances": importances,
        "best": {key: chosen[key] for key in ("number", "value", "params")} if chosen else None,
    }  # fmt: skip
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps(results))
    return folder


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four trials."""
    trials = [
        trial(0, "complete", [3.0, 2.0]), trial(1, "complete", [2.5, 1.5], rate=2e-3), trial(2, "pruned", [4.0]),
        trial(3, "fail", [], reason="mel_loss is not finite at step 10"),
    ]  # fmt: skip
    importances = {"optimiser.learning_rate": 0.8, "data.frame_budget": 0.2}
    return write_study(tmp_path_factory.mktemp("studies") / "study", trials, best=1, importances=importances)


@pytest.fixture(scope="session")
def patient(tiny: Config) -> Config:
    """`tiny`, but the gate of a voice that has hardly learnt does not end it at once."""
    return override(tiny, {"synthesis.gate_threshold": 0.95})


@pytest.fixture(scope="session")
def evaluated(trained: Path, features: Path, study: Path, patient: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `evaluate` leaves of `trained`. Read only."""
    out = tmp_path_factory.mktemp("evaluations") / "out"
    evaluate(trained, features, out, patient, study=study, progress=Silent())
    return out
