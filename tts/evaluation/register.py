"""A voice into the model registry; it becomes the champion only if it passed and is better than the champion on the same features."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tts.config import Config
from tts.config.load import to_json
from tts.diagnostics import strict_json
from tts.errors import DataError, UsageError
from tts.storage import building, write_text
from tts.tracking import Registration, Tracker
from tts.training.checkpoint import Checkpoints, LoadedModel, load_model
from tts.training.run import tracked_run

COMPARED = "mel_cepstral_distortion"
"""The metric by which voices are compared; lower is better."""


def register(run: Path, evaluation: Path, tracker: Tracker, config: Config, *, out: Path | None = None) -> Registration:
    """Registers the checkpoint that `evaluation` (what `evaluate` wrote) judged, under `tracking.registered_model`.

    Registered, and left in `out/model`, is a folder that `tts synthesize` takes as a run: the weights without the optimiser, `config.json`,
    `symbols.json` and `evaluation.json`. `out/registration.json` says what came of it. `out` is `evaluation` unless it is given.
    The run's tracking run, or a new one, gets metrics and report. Registering the same again changes nothing.

    Raises DataError (no evaluation, no checkpoint), UsageError (the evaluation is of another checkpoint), CannotWriteError,
    ServiceUnavailableError.
    """
    document = _read(evaluation / "evaluation.json")
    voice = load_model(run)
    if (document["step"], document["features"]) != (voice.step, voice.fingerprint):
        raise UsageError(
            f"{evaluation} judged step {document['step']} on features {document['features']}, but the best checkpoint in {run} is step {voice.step} "
            f"on features {voice.fingerprint}; run `tts evaluate` again"
        )
    metrics = {name: strict_json.from_json(value) for name, value in document["metrics"].items()}
    model = (out or evaluation) / "model"
    _export(voice, document, model)
    with tracker.run(run.resolve().name, run_id=tracked_run(run)[0] or None) as tracked:
        tracked.metrics({f"evaluation/{name}": value for name, value in metrics.items()}, voice.step)
        tracked.tags({"evaluation": "passed" if document["passed"] else "failed"})
        tracked.artefact(evaluation / "report.html", "evaluation")
        registration = tracker.register(
            model,
            name=config.tracking.registered_model,
            run_id=tracked.id,
            metrics=metrics,
            compare=COMPARED,
            fingerprint=voice.fingerprint,
            passed=bool(document["passed"]),
        )
    write_text((out or evaluation) / "registration.json", strict_json.to_json(asdict(registration)))
    return registration


def _export(voice: LoadedModel, document: dict[str, Any], target: Path) -> None:
    """A folder to speak with. The same voice and evaluation give the same bytes, so that they are registered once."""
    content = {
        "model": {name: tensor.cpu() for name, tensor in voice.model.state_dict().items()},
        "config": voice.config.model_dump(mode="json"),
        "symbols": list(voice.symbol_table.symbols),
        "language": voice.config.text.language,
        "fingerprint": voice.fingerprint,
    }
    with building(target) as folder:
        Checkpoints(folder).save(voice.step, content, mel_loss=None, keep=1)
        write_text(folder / "config.json", to_json(voice.config))
        symbols = {"language": voice.config.text.language, "symbols": content["symbols"]}
        write_text(folder / "symbols.json", json.dumps(symbols, ensure_ascii=False, indent=1) + "\n")
        write_text(folder / "evaluation.json", strict_json.to_json(document))


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values = [strict_json.from_json(value) for value in document["metrics"].values()]
        complete = {"step", "features", "passed"} <= document.keys() and COMPARED in document["metrics"]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run `tts evaluate` first") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}); run `tts evaluate` again") from error
    if not complete or not values:
        raise DataError(f"{path} is damaged (a field is missing); run `tts evaluate` again")
    if document["passed"] and not math.isfinite(strict_json.from_json(document["metrics"][COMPARED])):
        raise DataError(f"{path} is damaged (it passed without a finite {COMPARED}); run `tts evaluate` again")
    return document
