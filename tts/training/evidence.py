"""All that is needed to make a skipped update again, on another machine and without the features: anomalies/step-XXXXXXXX.pt.

Weights, buffers and the gradient scaler as they were before the step, every rank's part of the batch, and the configuration in force. Random
numbers are functions of its seed, the step and the rank (randomness.py). Adam's state is not there: it has no part in a step before the update.
Tensors and plain values alone, so that torch's safe loader reads it. The file holds {"format", "program_version", "sha256", "content"}: content is
the bytes of another such file, with all the rest, because torch does not notice bytes that were altered.
"""

import dataclasses
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from tts import __version__
from tts.config import Config
from tts.config.load import describe
from tts.data.batch import Batch, Whole
from tts.errors import DataError
from tts.model.tacotron2 import Tacotron2
from tts.storage import writing
from tts.training.anomaly import Anomaly
from tts.training.precision import Precision, PrecisionName
from tts.training.ranks import Ranks

FORMAT = 1
UNREADABLE = (OSError, UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError)
"""What torch's loader raises for files that were cut or altered."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """A step that was not finite."""

    step: int
    anomaly: Anomaly
    """What was found then."""
    config: Config
    """In force at the step, remedies of restarts included."""
    batches: tuple[Batch, ...]
    """Each rank's part, on the CPU."""
    model: dict[str, Tensor]
    """Weights and buffers before the step, on the CPU."""
    scaler: dict[str, Any]
    """State of the gradient scaler before the step; empty where there is none."""
    symbols: int
    speakers: int
    device: str
    """Type of the device that it was made on."""
    precision: PrecisionName
    torch_version: str = str(torch.__version__)
    program_version: str = __version__
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Normalised, of each utterance in the batch."""


def keep(
    model: Tacotron2, scaler: GradScaler, batch: Batch, config: Config, step: int, anomaly: Anomaly, *, precision: Precision, ranks: Ranks
) -> Evidence | None:
    """The evidence of a step, whose update was not made and whose statistics are restored; the scaler's state is not yet updated.

    All ranks call it and give their part; the one that leads gets it.
    """
    batches = ranks.gather(batch.to(torch.device("cpu")))
    if not ranks.leads:
        return None
    return Evidence(
        step=step,
        anomaly=anomaly,
        config=config,
        batches=tuple(batches),
        model={name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()},
        scaler=scaler.state_dict(),
        symbols=model.encoder.embedding.num_embeddings,
        speakers=model.speaker.table.num_embeddings if model.speaker else 1,
        device=precision.device.type,
        precision=precision.name,
    )


def write_evidence(folder: Path, evidence: Evidence, texts: Mapping[str, str]) -> Path:
    """Leaves step-XXXXXXXX.pt, with the texts of its utterances. Raises CannotWriteError, and then there is no such file."""
    ids = evidence.batches[0].all_ids
    plain = {field.name: getattr(evidence, field.name) for field in dataclasses.fields(evidence)}
    plain |= {
        "anomaly": dataclasses.asdict(evidence.anomaly),
        "config": evidence.config.model_dump(mode="json"),
        "batches": [dataclasses.asdict(batch) for batch in evidence.batches],
        "texts": {identity: texts[identity] for identity in ids if identity in texts},
    }
    content = _packed(plain)
    digest = hashlib.sha256(content).hexdigest()
    bytes_N = torch.frombuffer(content, dtype=torch.uint8)
    packed = _packed({"format": FORMAT, "program_version": evidence.program_version, "sha256": digest, "content": bytes_N})
    path = folder / f"step-{evidence.step:08d}.pt"
    with writing(path) as file:
        file.write(packed)
    return path


def read_evidence(path: Path) -> Evidence:
    """What `write_evidence` left. Raises DataError for a file that is missing, cut, altered or of another version."""
    try:
        outer = _unpacked(path)
        if not isinstance(outer, dict) or not {"format", "content", "sha256"} <= outer.keys():
            raise DataError(f"{path} is no evidence of a skipped update; expected anomalies/step-XXXXXXXX.pt of a run, which is no checkpoint")
        if outer["format"] != FORMAT:
            raise _of_another_version(path, outer, f"its format is {outer['format']!r}, not {FORMAT}")
        content = outer["content"].numpy().tobytes()
        if hashlib.sha256(content).hexdigest() != outer["sha256"]:
            raise DataError(f"evidence {path} is damaged (its sha256 is not the one it was written with); restore it from a copy")
        plain = _unpacked(io.BytesIO(content))
    except FileNotFoundError:
        raise DataError(f"evidence {path} does not exist; expected anomalies/step-XXXXXXXX.pt of a run") from None
    except UNREADABLE as error:
        raise DataError(f"evidence {path} cannot be read ({' '.join(str(error).split())[:200]}); restore it from a copy") from None
    try:
        fields = {
            "anomaly": Anomaly(**_tuples(plain["anomaly"])),
            "config": Config.model_validate(plain["config"]),
            "batches": tuple(_batch(part) for part in plain["batches"]),
        }
        return Evidence(**{**plain, **fields})
    except ValidationError as error:
        raise _of_another_version(path, outer, describe(error)) from None
    except (TypeError, KeyError) as error:
        raise _of_another_version(path, outer, str(error)) from None


def _packed(plain: dict[str, Any]) -> bytearray:
    buffer = io.BytesIO()  # torch's own writer aborts the process when the disk is full
    torch.save(plain, buffer)
    return bytearray(buffer.getbuffer())


def _unpacked(file: Path | io.BytesIO) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


def _batch(plain: dict[str, Any]) -> Batch:
    part_of = plain["part_of"]
    return Batch(**{**_tuples(plain), "part_of": part_of and Whole(**_tuples(part_of))})


def _tuples(plain: dict[str, Any]) -> dict[str, Any]:
    """Lists, where a loader made some of tuples, are tuples again."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


def _of_another_version(path: Path, plain: dict[str, Any], reason: str) -> DataError:
    wrote = plain.get("program_version", "unknown")
    return DataError(f"evidence {path} was written by another version of this program ({wrote}, this is {__version__}: {reason}); use that one")
