"""How faults are injected, for real: into files, by the system's limits, or by torch's own hooks where a real cause would need a device."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from tts.data.store import FeatureStore
from tts.model.postnet import Postnet


def spoil_recording(corpus: Path, number: int, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
    """Rewrites one recording of a corpus, as floating-point WAV."""
    path = sorted((corpus / "wavs").glob("*.wav"))[number]
    samples, rate = soundfile.read(path, dtype="float32")
    soundfile.write(path, change(samples), rate, subtype="FLOAT")


def spoil_mel(store: FeatureStore, number: int, value: float) -> None:
    """Writes a value into one cell of the mel of an utterance to train on."""
    mels = np.load(store.folder / "mels.npy", mmap_mode="r+")
    mels[store._offsets[store.train[number % len(store.train)]] + 3, 5] = value
    mels.flush()


def flip_a_bit(path: Path, share: float) -> None:
    """In a file, at a share of its length."""
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


def limit_files(size: int) -> None:
    """From here on the system refuses to make a file of this process larger: in the middle of a write, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A disk of its own for a folder, with room for so many bytes, until the block ends; what is on it is gone then. False where we may not mount."""
    folder.mkdir()
    mounted = os.geteuid() == 0 and _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield mounted
    finally:
        if mounted:
            _run("umount", folder)


def disk_grows(folder: Path) -> None:
    """Gives the disk of `small_disk` plenty of room."""
    _run("mount", "-o", "remount,size=64m", folder)


def _run(program: str, *arguments: str | Path) -> bool:
    """Whether the system's program did so."""
    return subprocess.run([shutil.which(program) or program, *arguments], check=False, capture_output=True).returncode == 0


def infinite_gradients(number: int) -> None:
    """In the training batch of that number, from 1, and whenever it comes again, the gradient at the postnet's end becomes infinite."""
    shapes = list[torch.Size]()

    def on_forward(module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(module, Postnet) and module.training and output.requires_grad:
            shapes.append(output.shape)
            if len(shapes) >= number and output.shape == shapes[number - 1]:
                output.register_hook(lambda gradient: gradient * torch.inf)

    register_module_forward_hook(on_forward)


def out_of_memory(number: int) -> None:
    """In the training batch of that number, from 1, a module finds the device out of memory, once."""
    batches = list[None]()

    def on_forward(module: nn.Module, _inputs: Any, _output: Any) -> None:
        if isinstance(module, Postnet) and module.training:
            batches.append(None)
            if len(batches) == number:
                raise torch.OutOfMemoryError("as a device says it")

    register_module_forward_hook(on_forward)
