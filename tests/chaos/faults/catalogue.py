"""The faults. What stands here is what docs/recovery.md says, and what the product is held to."""

import shutil
from functools import partial

import numpy as np

from tests.chaos.faults.fault import Fault
from tests.chaos.faults.spoiling import disk_grows, flip_a_bit, infinite_gradients, limit_files, small_disk, spoil_mel, spoil_recording
from tests.chaos.faults.stage import Scene
from tts.errors import CannotWriteError, DataError

SMALL_FILES = 80_000
"""Bytes that a run takes beside snapshots and checkpoints, and somewhat more."""
OVERFLOWING = 1e25
"""A finite level, of which a squared error in single precision is not."""


def _nan_in_recording(scene: Scene) -> None:
    corpus = scene.corpus()
    spoil_recording(corpus, scene.seed, lambda samples: np.where(np.arange(len(samples)) == len(samples) // 2, np.float32("nan"), samples))
    scene.command("prepare", corpus, scene.folder / "features")
    scene.train(scene.folder / "features")


def _silent_recording(scene: Scene) -> None:
    corpus = scene.corpus()
    spoil_recording(corpus, scene.seed, np.zeros_like)
    scene.command("prepare", corpus, scene.folder / "features")
    scene.train(scene.folder / "features")


def _mel(scene: Scene, value: float) -> None:
    store = scene.features()
    spoil_mel(store, scene.seed, value)
    scene.train(store.folder)


def _gradient(scene: Scene) -> None:
    scene.train(hook=partial(infinite_gradients, 2 + scene.seed))


def _nothing_but_nan(scene: Scene) -> None:
    store = scene.features()
    for number in range(len(store.train)):
        spoil_mel(store, number, np.nan)
    scene.train(store.folder, recovery__max_skipped_updates=3)


def _full_disk(scene: Scene) -> None:
    share = 0.2 + 0.2 * (scene.seed % 4)
    checkpoint, snapshot = (scene.stage.undisturbed / name for name in ("checkpoints/step-00000004.pt", "snapshots/step-00000004.npz"))
    size, before = checkpoint.stat().st_size, snapshot.stat().st_size
    with small_disk(scene.folder / "disk", before + SMALL_FILES + int(share * size)) as mounted:
        scene.run = scene.folder / "disk" / "run"
        scene.train(hook=None if mounted else partial(limit_files, before + int(share * (size - before))))
        if mounted:
            disk_grows(scene.folder / "disk")
        scene.train()
        scene.compare()


def _damaged_newest(scene: Scene) -> None:
    shutil.copytree(scene.stage.undisturbed, scene.run)
    flip_a_bit(max((scene.run / "checkpoints").glob("step-*.pt")), share=(1 + scene.seed) / 7)
    scene.train()
    scene.compare()


def _damaged_all(scene: Scene) -> None:
    shutil.copytree(scene.stage.undisturbed, scene.run)
    for path in (scene.run / "checkpoints").glob("step-*.pt"):
        flip_a_bit(path, share=(1 + scene.seed) / 7)
    scene.train()


FAULTS = (
    Fault(
        "NaN in a recording",
        "one sample of one recording is NaN, in floating-point WAV",
        _nan_in_recording,
        ends=(0, 0),
        means="`tts prepare` leaves the recording out, names it and the reason in `quality.json`; training goes as without it",
        names=frozenset({"rejected: unreadable"}),
        says=("clip * is left out: unreadable: * holds samples that are not finite numbers",),
    ),
    Fault(
        "silence",
        "one recording is digital silence",
        _silent_recording,
        ends=(0, 0),
        means="`tts prepare` leaves the recording out, names it and the reason in `quality.json`; training goes as without it",
        names=frozenset({"rejected: silent"}),
    ),
    Fault(
        "NaN in the features",
        "one cell of the mel of one utterance is NaN",
        partial(_mel, value=float("nan")),
        ends=(0,),
        means="updates with this utterance are skipped, it is named, the others train on",
        names=frozenset({"anomaly: input mel"}),
        says=("update skipped: input mel is nan",),
    ),
    Fault(
        "overflow in a loss",
        "one cell of the mel of one utterance is 1e25, finite, but not when squared",
        partial(_mel, value=OVERFLOWING),
        ends=(0,),
        means="updates with this utterance are skipped, the others train on",
        names=frozenset({"anomaly: loss mel_before"}),
    ),
    Fault(
        "infinite gradient",
        "in a batch the gradient at the postnet's end becomes infinite, by a hook in torch",
        _gradient,
        ends=(0,),
        means="updates with this batch are skipped, the others train on",
        names=frozenset({"anomaly: gradient postnet.convolutions.2.norm.bias"}),
    ),
    Fault(
        "full disk",
        "the disk has no room for the first checkpoint: a small tmpfs, or where none may be mounted a limit on the size of files",
        _full_disk,
        ends=(CannotWriteError.exit_code, 0),
        means="exit 73 with the file and the remedy; with room again the same command ends as if nothing had been",
        says=("error: cannot write *checkpoints*",),
        exact=True,
    ),
    Fault(
        "damaged newest checkpoint",
        "one bit of the newest checkpoint is flipped",
        _damaged_newest,
        ends=(0,),
        means="a warning, and the run goes on from the checkpoint before, to the bit as if nothing had been",
        says=("is damaged * going on from the checkpoint before it",),
        exact=True,
    ),
    Fault(
        "all checkpoints damaged",
        "one bit of each checkpoint is flipped",
        _damaged_all,
        ends=(DataError.exit_code,),
        means="exit 65: nothing is trained over what may still be restored",
        says=("every checkpoint in * is damaged",),
    ),
)
