"""Checkpoints: complete, written whole or not at all, verified by checksum, thinned.

`checkpoints/index.json` lists the files with their sha256 and, where one was validated, its mel loss. A checkpoint holds weights, BatchNorm
statistics, Adam's state, the gradient scaler, counts, what is watched (recovery/), restarts, configuration, symbols, speakers and fingerprint.
Random states and batch position are functions of the step (randomness.py, data/batches.py), so the step is all there is to save of them.
"""

import hashlib
import io
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, computed_field

from tts.config import OBJECTIVES, Config
from tts.config.load import flatten, from_mapping
from tts.errors import DataError, UsageError
from tts.model.tacotron2 import Tacotron2
from tts.storage import write_text, writing
from tts.text.symbols import SymbolTable
from tts.training.precision import choose_device
from tts.training.recovery.trouble import Doubt
from tts.training.schedule import reduction_factor
from tts.training.weights import load_weights

logger = logging.getLogger(__name__)

FORMAT = 2  # 2: the network holds the mean and deviation of the mel bands

MAY_CHANGE = ("steps", "device", "threads", "cuda_graphs", "log_interval", "validation_interval", "checkpoint_interval", "keep_checkpoints")
"""Knobs of `training` that a resumed run may set anew: they change how far it goes and what is noted, not what a step does."""


class Entry(BaseModel):
    """One checkpoint in the index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    file: str
    sha256: str
    mel_loss: float | None
    """Of the validation at this step, if there was one and it was finite."""
    regular: bool = True
    """Written where the run's own steps say so. Else it was written as the run stopped and goes with the next one, so that what is kept, and where
    a restart goes back to, does not hang on when a run was stopped."""


class Index(BaseModel):
    """What `index.json` holds: the checkpoints by step."""

    model_config = ConfigDict(frozen=True)

    checkpoints: tuple[Entry, ...] = ()

    @property
    def best_entry(self) -> Entry | None:
        """The checkpoint with the lowest validation mel loss; the earliest of equals."""
        return min((entry for entry in self.checkpoints if entry.mel_loss is not None), key=lambda entry: entry.mel_loss or 0.0, default=None)

    @computed_field
    def best(self) -> int | None:
        """Its step, for who reads the file; it is worked out anew from what is there."""
        return self.best_entry.step if self.best_entry else None


@dataclass(frozen=True)
class LoadedModel:
    """A network to speak with."""

    model: Tacotron2
    """In eval mode."""
    config: Config
    symbol_table: SymbolTable
    step: int
    fingerprint: str
    speakers: tuple[str, ...] = ()
    """Names of those whom the network tells apart, by number; empty for a network without speaker embedding."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"

    def index(self) -> Index:
        """The checkpoints that are there; empty where nothing was saved yet. Raises DataError."""
        path = self.folder / "index.json"
        try:
            listed = Index.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Index()
        except (UnicodeDecodeError, ValidationError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path} is damaged ({reason}); restore it from a copy, or train into another folder") from None
        there = tuple(entry for entry in listed.checkpoints if (self.folder / entry.file).is_file())
        for entry in sorted(set(listed.checkpoints) - set(there), key=lambda entry: entry.step):
            logger.warning("checkpoint %s was removed; going on without it", self.folder / entry.file)
        return Index(checkpoints=there)

    def save(
        self,
        step: int,
        content: Mapping[str, Any],
        *,
        mel_loss: float | None,
        keep: int,
        regular: bool = True,
        doubts: Sequence[Doubt] = (),
        probation_steps: int = 0,
    ) -> None:
        """Adds a checkpoint; of the regular ones the `keep` newest stay, the best, and those that a restart needs for any of the doubts.

        Raises CannotWriteError, and then all is as before.
        """
        name = f"step-{step:08d}.pt"
        entry = self._write(name, step, content, mel_loss=mel_loss, regular=regular)
        # A later one is of a future that this run, resumed from before it, will not have.
        entries = (*(old for old in self.index().checkpoints if old.step < step and old.regular), entry)
        self._list(thinned(entries, keep, doubts, probation_steps) if regular else entries)

    def go_back(self, step: int, content: Mapping[str, Any], number: int) -> None:
        """Makes what a restart begins with the newest checkpoint, in place of that of its step and those after it.

        It has a name of its own and counts from the moment in which the index names it: a kill before leaves all as it was.
        Raises CannotWriteError, and then all is as before.
        """
        entries = self.index().checkpoints
        mel_loss = next((old.mel_loss for old in entries if old.step == step), None)
        entry = self._write(f"step-{step:08d}-restart-{number:02d}.pt", step, content, mel_loss=mel_loss, regular=True)
        self._list((*(old for old in entries if old.step < step and old.regular), entry))

    def proven(self, doubt: Doubt, probation_steps: int, device: torch.device) -> dict[str, Any] | None:
        """The newest checkpoint that is whole and was proven healthy before a doubt; None where there is none but fresh weights."""
        for entry in reversed(self.index().checkpoints):
            if entry.regular and entry.step > 0 and doubt.spares(entry.step, probation_steps):
                try:
                    return self.read(entry, device)
                except DataError as error:
                    logger.warning("%s; going back further", error)
        return None

    def newest(self, device: torch.device) -> dict[str, Any] | None:
        """The newest checkpoint that is whole, or None where none was ever saved. Raises DataError when all are damaged."""
        entries = self.index().checkpoints
        for entry in reversed(entries):
            try:
                return self.read(entry, device)
            except DataError as error:
                logger.warning("%s; going on from the checkpoint before it", error)
        if entries:
            raise DataError(f"every checkpoint in {self.folder} is damaged; restore one from a copy, or train into another folder")
        return None

    def _write(self, name: str, step: int, content: Mapping[str, Any], *, mel_loss: float | None, regular: bool) -> Entry:
        # torch's own writer aborts the process when the disk is full, so it writes to memory.
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **content, "step": step}, buffer)
        with writing(self.folder / name) as file:
            file.write(buffer.getbuffer())
        measured = mel_loss if mel_loss is not None and math.isfinite(mel_loss) else None
        return Entry(step=step, file=name, sha256=hashlib.sha256(buffer.getbuffer()).hexdigest(), mel_loss=measured, regular=regular)

    def _list(self, entries: Sequence[Entry]) -> None:
        """From here on these are the checkpoints; other files go."""
        write_text(self.folder / "index.json", Index(checkpoints=tuple(entries)).model_dump_json(indent=2) + "\n")
        for path in set(self.folder.glob("step-*.pt")) - {self.folder / entry.file for entry in entries}:
            path.unlink()

    def read(self, entry: Entry, device: torch.device) -> dict[str, Any]:
        """The content of a checkpoint. Raises DataError naming the file if it was cut or altered."""
        path = self.folder / entry.file
        remedy = "restore it from a copy, or delete it to use another checkpoint of the run"
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if digest != entry.sha256:
                    raise DataError(f"checkpoint {path} is damaged (its sha256 is not the one it was written with); {remedy}")
                file.seek(0)
                content: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError) as error:
            raise DataError(f"checkpoint {path} cannot be read ({' '.join(str(error).split())[:200]}); {remedy}") from None
        if content.get("format") != FORMAT:
            raise DataError(f"checkpoint {path} has format {content.get('format')!r}, this version reads {FORMAT}; use the version that wrote it")
        return content


def thinned(entries: Sequence[Entry], keep: int, doubts: Sequence[Doubt] = (), probation_steps: int = 0) -> tuple[Entry, ...]:
    """The entries, oldest first, that stay: the `keep` newest, the best, and for each doubt the newest that is proven healthy.

    And the one after that, which is on probation: the newest alone would be thinned out before it is proven, each time.
    """
    wanted = {*entries[-keep:], Index(checkpoints=tuple(entries)).best_entry}
    for doubt in doubts:
        proven = sum(doubt.spares(entry.step, probation_steps) for entry in entries)
        wanted.update(entries[max(0, proven - 1) : proven + 1])
    return tuple(entry for entry in entries if entry in wanted)


def check_resumable(content: Mapping[str, Any], config: Config, fingerprint: str, run: Path) -> None:
    """Raises UsageError that names everything in which a run differs from the checkpoint that it would go on from."""
    saved, asked = flatten(from_mapping(content["config"], f"checkpoint in {run}")), flatten(config)
    sections = (
        "text.",
        "audio.",
        "model.",
        *(f"{section}." for section in OBJECTIVES),
        "optimiser.",
        "training.",
        "data.frame_budget",
        "data.max_batch_size",
    )
    free = {f"training.{name}" for name in MAY_CHANGE}
    different = [
        f"{name} is {asked[name]!r}, the run has {saved[name]!r}"
        for name in asked
        if name.startswith(sections) and name not in free and asked[name] != saved[name]
    ]
    if fingerprint != content["fingerprint"]:
        different.append(f"the features' fingerprint is {fingerprint}, the run has {content['fingerprint']}")
    if config.training.steps < content["step"]:
        different.append(f"training.steps is {config.training.steps}, the run has made {content['step']} (it may grow)")
    if different:
        raise UsageError(f"{run} holds another run: {'; '.join(different)}; set them back, or choose another folder")


def load_model(run: Path, *, device: str = "cpu") -> LoadedModel:
    """The run's best checkpoint by validation mel loss, or its newest where none was validated. Raises DataError."""
    checkpoints = Checkpoints(run)
    index = checkpoints.index()
    entry = index.best_entry or (index.checkpoints[-1] if index.checkpoints else None)
    if entry is None:
        raise DataError(f"{run} holds no checkpoint; expected a folder made by `tts train`")
    place = choose_device("cuda") if device == "cuda" else torch.device(device)
    content = checkpoints.read(entry, place)
    config = from_mapping(content["config"], str(checkpoints.folder / entry.file))
    table = SymbolTable(tuple(content["symbols"]))
    speakers = tuple(content.get("speakers", ())) if config.model.speaker_embedding else ()
    model = Tacotron2(config.model, symbols=len(table), mels=config.audio.mels, speakers=max(1, len(speakers))).to(place)
    load_weights(model, content["model"], f"checkpoint {checkpoints.folder / entry.file}")
    model.reduce_by(reduction_factor(config, entry.step))
    return LoadedModel(model.eval(), config, table, entry.step, content["fingerprint"], speakers)
