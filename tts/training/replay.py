"""A skipped update made again from its evidence, as it was: with the same weights, batch, dropout, number format and number of ranks."""

import multiprocessing
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import torch

from tts.errors import DataError, TtsError, UsageError
from tts.training.anomaly import Anomaly
from tts.training.cores import set_threads
from tts.training.evidence import Evidence, read_evidence
from tts.training.joining import Place, joined
from tts.training.measured_modules import Measured, gradients, measuring, together
from tts.training.precision import Precision, choose_device, choose_precision
from tts.training.ranks import ALONE, Ranks
from tts.training.step import Learner, new_learner, train_step


class NotReproducedError(TtsError):
    """A step that was made again did not end as it is recorded."""

    exit_code = 1


class LostReplayError(TtsError):
    """A process that was to make a rank's part of the step died."""

    exit_code = 1


@dataclass(frozen=True)
class Replayed:
    """What the step came to now."""

    anomaly: Anomaly | None
    overflow: bool
    """Only the gradient scaler was too bold."""
    figures: dict[str, float]
    """Loss, terms, gradient norm."""
    modules: list[Measured]
    gradients: list[Measured]
    device: str
    precision: str
    torch_version: str

    def reproduces(self, evidence: Evidence) -> bool:
        """Whether the same tensor is not finite in the same way."""
        then, now = evidence.anomaly, self.anomaly
        return now is not None and (now.kind, now.name, now.value) == (then.kind, then.name, then.value)


def replay(path: Path, evidence: Evidence, device: Literal["auto", "cpu", "cuda"] = "auto") -> Replayed:
    """Makes the step of the evidence, which is that in `path`, again: with several ranks in as many processes, which read it there.

    auto is the kind of device that it was made on, where this machine has it. fp16 and bf16 are fp32 on a device that does not have them.
    Raises UsageError (a device that is not there), DataError (weights that do not fit), LostReplayError.
    """
    ranks = len(evidence.batches)
    place = _device(evidence, device)
    if ranks == 1:
        set_threads(evidence.config.training.threads)
        return _made(evidence, place, ALONE)
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        places = [Place(rank, ranks, here=ranks, device=rank, meeting=meeting) for rank in range(ranks)]
        parts = _in_processes(path, places, "cuda" if place.type == "cuda" else "cpu")
    return parts[0]


def _device(evidence: Evidence, name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    found, ranks = torch.cuda.device_count(), len(evidence.batches)
    enough = found >= ranks
    if name == "cuda" and found and not enough:
        raise UsageError(f"the step was made by {ranks} processes, one a device, but torch finds {found} CUDA devices; set --device cpu")
    if name == "auto":
        name = "cuda" if evidence.device == "cuda" and enough else "cpu"
    if name == "cuda" and not found:
        raise UsageError("--device is cuda but torch finds no CUDA device here; set --device cpu")
    return choose_device(name)


def _precision(evidence: Evidence, device: torch.device) -> Precision:
    try:
        return choose_precision(evidence.precision, device)
    except UsageError:  # another device than it was made on; what is printed says so
        return choose_precision("fp32", device)


def _made(evidence: Evidence, device: torch.device, ranks: Ranks) -> Replayed:
    learner = _learner(evidence, _precision(evidence, device), ranks)
    batch = evidence.batches[ranks.rank].to(device)
    with measuring(learner.model) as modules, ranks.step():
        result = train_step(learner, batch, evidence.config, evidence.step)
    return Replayed(
        anomaly=result.anomaly,
        overflow=result.overflow,
        figures=result.figures(),
        modules=together(ranks.gather(modules)),
        gradients=gradients(learner.model),
        device=device.type,
        precision=learner.precision.name,
        torch_version=str(torch.__version__),
    )


def _learner(evidence: Evidence, precision: Precision, ranks: Ranks) -> Learner:
    mels = evidence.config.audio.mels
    learner = new_learner(evidence.config, symbols=evidence.symbols, mels=mels, speakers=evidence.speakers, precision=precision, ranks=ranks)
    try:
        learner.model.load_state_dict(evidence.model)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"the evidence's weights do not fit the network of this version ({reason}); use the version that wrote it") from None
    if evidence.scaler and precision.scaler().is_enabled():
        learner.scaler.load_state_dict(evidence.scaler)
    return learner


def _in_processes(path: Path, places: list[Place], device: Literal["cpu", "cuda"]) -> list[Replayed]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", __name__])  # once for all of them: Adam needs it, and it takes long to load
    pipes = [context.Pipe(duplex=False) for _ in places]
    processes = [context.Process(target=_rank, args=(pipe[1], path, place, device)) for pipe, place in zip(pipes, places, strict=True)]
    try:
        for process, (_, theirs) in zip(processes, pipes, strict=True):
            process.start()
            theirs.close()
        return [_received(rank, pipe[0]) for rank, pipe in enumerate(pipes)]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _received(rank: int, pipe: Connection) -> Replayed:
    try:
        told: Replayed | TtsError = pipe.recv()
    except EOFError:
        raise LostReplayError(f"the process of rank {rank} died before its step was made; what it said is above, or it lacked memory") from None
    if isinstance(told, TtsError):
        raise told
    return told


def _rank(pipe: Connection, path: Path, place: Place, device: Literal["cpu", "cuda"]) -> None:
    evidence = read_evidence(path)
    set_threads(evidence.config.training.threads, place.here)
    told: Replayed | TtsError
    try:
        with joined(place, device) as ranks:
            own = torch.device("cuda", place.device) if device == "cuda" else torch.device("cpu")
            told = _made(evidence, own, ranks)
            if not ranks.leads:
                ranks.end()  # which the one that leads says on leaving
    except TtsError as error:
        told = error
    pipe.send(told)
