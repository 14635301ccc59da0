"""The faults. What stands here is what docs/recovery.md says, and what the product is held to."""

import shutil
from collections.abc import Mapping
from functools import partial

import numpy as np

from tests.chaos.faults.container import container, fill, hindrance
from tests.chaos.faults.fault import Fault
from tests.chaos.faults.spoiling import disk_grows, flip_a_bit, infinite_gradients, limit_files, out_of_memory, small_disk, spoil_mel, spoil_recording
from tests.chaos.faults.stage import Scene
from tts.errors import CannotWriteError, DataError, PreemptedError, TrainingDivergedError, UsageError

SMALL_FILES = 80_000
"""Bytes that a run takes beside snapshots and checkpoints, and somewhat more."""
EXPLODING: Mapping[str, object] = {
    "model__reduction_factor": 5,
    "data__frame_budget": 1200,
    "optimiser__learning_rate": 1.0,
    "optimiser__warmup_steps": 60,
    "optimiser__beta1": 0.0,
    "optimiser__beta2": 0.0,
    "training__steps": 50,
    "training__validation_interval": 50,
    "recovery__divergence_factor": 1.2,
    "recovery__divergence_steps": 2,
    "recovery__probation_steps": 0,
}
"""A rate that rises without end, and updates of its size: the loss falls first and then grows."""
SHORT_OF_MEMORY = 0.87
"""Of a container's memory: more than recovery.memory_share, and not yet what the kernel kills for."""
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


def _frozen_gate(scene: Scene) -> None:
    scene.train(losses__gate_weight=0.0)


def _exploding(scene: Scene, **knobs: object) -> None:
    scene.train(training__seed=scene.seed, **EXPLODING, **knobs)


def _memory_at_once(scene: Scene) -> None:
    with container() as group:
        scene.train(hook=partial(fill, group, SHORT_OF_MEMORY, 1))
    scene.train()
    scene.compare()


def _memory_later(scene: Scene) -> None:
    with container() as group:
        scene.train(hook=partial(fill, group, SHORT_OF_MEMORY, 6 + scene.seed), training__steps=5000, training__validation_interval=5000)


def _device_memory(scene: Scene) -> None:
    scene.train(hook=partial(out_of_memory, 2 + scene.seed))


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
        finds=frozenset({"clips-silent"}),
    ),
    Fault(
        "NaN in the features",
        "one cell of the mel of one utterance is NaN",
        partial(_mel, value=float("nan")),
        ends=(0,),
        means="updates with this utterance are skipped, it is named, the others train on",
        names=frozenset({"anomaly: input mel"}),
        finds=frozenset({"updates-skipped", "utterance-not-finite"}),
        says=("update skipped: input mel is nan",),
    ),
    Fault(
        "overflow in a loss",
        "one cell of the mel of one utterance is 1e25, finite, but not when squared",
        partial(_mel, value=OVERFLOWING),
        ends=(0,),
        means="updates with this utterance are skipped, the others train on",
        names=frozenset({"anomaly: loss mel_before"}),
        finds=frozenset({"updates-skipped"}),
    ),
    Fault(
        "infinite gradient",
        "in a batch the gradient at the postnet's end becomes infinite, by a hook in torch",
        _gradient,
        ends=(0,),
        means="updates with this batch are skipped, the others train on",
        names=frozenset({"anomaly: gradient postnet.convolutions.2.norm.bias"}),
        finds=frozenset({"updates-skipped"}),
    ),
    Fault(
        "exploding learning rate",
        "the learning rate rises to 1 and updates are of its size; the ladder of remedies begins with a hundredth of it",
        partial(_exploding, recovery__remedies=[{"learning_rate": 0.01}]),
        ends=(0,),
        means="one restart from before the loss grew, under the lower rate; the run makes all its steps",
        names=frozenset({"restart: divergence"}),
        finds=frozenset({"finished", "restarted"}),
    ),
    Fault(
        "exploding learning rate, no remedy",
        "the same, and the remedy changes the order of the data alone",
        partial(_exploding, recovery__remedies=[{}]),
        ends=(TrainingDivergedError.exit_code,),
        means="one restart; then exit 70, and the message tells what was tried",
        names=frozenset({"restart: divergence"}),
        finds=frozenset({"diverged", "restarted"}),
        says=("error: divergence: *(recovery.remedies) did not help",),
    ),
    Fault(
        "NaN in all features",
        "each utterance has a cell that is NaN",
        _nothing_but_nan,
        ends=(TrainingDivergedError.exit_code,),
        means="as many restarts as the ladder has remedies, three; then exit 70, and the message tells what was tried",
        names=frozenset({"anomaly: input mel", "restart: non-finite"}),
        finds=frozenset({"diverged", "restarted"}),
        says=("error: non-finite: 3 updates in a row were not finite * its 3 restarts (recovery.remedies) did not help",),
    ),
    Fault(
        "frozen gate",
        "the stop gate gets no gradient: its loss has a weight of 0",
        _frozen_gate,
        ends=(0,),
        means="training goes on; the report says which part of the network does not learn, and which weights to look at",
        finds=frozenset({"module-frozen"}),
    ),
    Fault(
        "memory limit, later",
        "in a container of 2 GiB (a control group), 87 % are taken after some steps and not given back",
        _memory_later,
        ends=(PreemptedError.exit_code,),
        means="caches are dropped, in vain; a checkpoint, and exit 75 before the kernel kills: the same command goes on in a fresh process",
        says=("error: memory is short: * bytes that this container has are held*; checkpoint written at step",),
        hindrance=hindrance,
    ),
    Fault(
        "memory limit, at once",
        "the same in the first step",
        _memory_at_once,
        ends=(UsageError.exit_code, 0),
        means="exit 64, for a fresh process would only come to the same point; with memory the same command ends as if nothing had been",
        says=("error: memory is short: * bytes that this container has are held*so few steps were made",),
        exact=True,
        hindrance=hindrance,
    ),
    Fault(
        "device out of memory",
        "in one step a module finds the device out of memory, as CUDA says it (a hook in torch, on the CPU)",
        _device_memory,
        ends=(0,),
        means="`data.frame_budget` is halved and the step made again; the run makes all its steps",
        finds=frozenset({"frame-budget-halved"}),
        says=("the device is out of memory in *; from now on the budget is * frames (halving 1 of at most 3)",),
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
