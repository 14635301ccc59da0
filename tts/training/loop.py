"""The training loop: when things happen. What one update is, is in step.py; what is written down, in session.py.

Steps count from 1. A run that is stopped between any two steps and started again makes the same updates, bit for bit on a CPU with the same number
of threads: dropout and batches are functions of the step (randomness.py, data/batches.py), all else is in the checkpoint.

A run that went wrong goes back to where it was healthy and on from there under a remedy (recovery/, restart.py). That it did is decided between two
steps, by what is in the checkpoint alone.

Several processes may train together (ranks.py): rank 0 is in `train`, the others in `follow`. Between two steps each says whether it was asked
to stop, and all hear the same answer; rank 0 validates and writes before it speaks. With dropout off they make the updates of one process, up
to rounding, and a run may go on with more or fewer of them.
"""

from collections.abc import Generator
from pathlib import Path

from tts.config import Config
from tts.data.store import FeatureStore
from tts.errors import INTERRUPTED, TrainingDivergedError
from tts.progress import Progress, Task
from tts.training.cores import set_threads
from tts.training.memory import MemoryWatch
from tts.training.preemption import StopFlag
from tts.training.ranks import ALONE, DIVERGED, GO_BACK, Ranks
from tts.training.run_folder import holding
from tts.training.session import Session
from tts.training.updates import Updates
from tts.training.validation import Measure, ValidationRecord


def train(
    store: FeatureStore,
    config: Config,
    run: Path,
    *,
    progress: Progress,
    stop: StopFlag,
    measure: Measure | None = None,
    ranks: Ranks = ALONE,
) -> Generator[ValidationRecord, None, None]:
    """Trains until `training.steps`, from the newest checkpoint in `run` if there is one; yields a record after each validation.

    `measure` is asked at each validation for more metrics of the network, which is in eval mode then; training goes on as without it.

    A caller may leave the loop; the folder can be resumed. Nothing is done before the first record is asked for.
    Raises UsageError (features, device or an earlier run that do not fit), DataError (damaged run), CannotWriteError,
    TrainingDivergedError, and PreemptedError or KeyboardInterrupt once the flag is set and a checkpoint is written; LostRankError;
    ShortOfMemoryError (a PreemptedError) or TooLittleMemoryError (memory.py) likewise, and DeviceMemoryError (device_memory.py).
    """
    store.check(config)
    set_threads(config.training.threads, ranks.here)
    with holding(run):
        session = Session(store, config, run, measure, ranks)
        with session.noting_the_end(), progress.task("Training", total=config.training.steps, done=session.tally.step) as task:
            yield from _records(session, task, stop, ranks, MemoryWatch(config))


def follow(store: FeatureStore, config: Config, *, stop: StopFlag, ranks: Ranks) -> int:
    """Makes the updates of rank 0, wherever its run stands, until that is at its end. The exit code that all ranks end with; rank 0 says why.

    Raises UsageError (features or device that do not fit) and LostRankError.
    """
    store.check(config)
    set_threads(config.training.threads, ranks.here)
    updates = Updates(store, config, ranks)
    state = ranks.begun(updates.device)
    if state is None:
        return 0
    updates.load(state)
    memory = MemoryWatch(config)
    while not ranks.agree(stop):
        if ranks.heard == GO_BACK:
            state = ranks.begun(updates.device)
            if state is None:
                return 0
            updates.load(state)
            continue
        updates.make()
        memory.stepped(stop)
        if ranks.agree(stop):
            break
    if ranks.heard == DIVERGED:
        ranks.end()
        return TrainingDivergedError.exit_code
    if ranks.over:
        return 0
    ranks.end()
    error = stop.error(updates.tally.step, worthwhile=memory.worthwhile)
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else error.exit_code


def _records(session: Session, task: Task, stop: StopFlag, ranks: Ranks, memory: MemoryWatch) -> Generator[ValidationRecord, None, None]:
    while True:
        if _went_back(session, task, stop, ranks):
            continue
        # First what the step just made left to do: a resumed run may have been stopped before its validation.
        if session.tally.step > 0:
            record = session.validate(stop)
            session.save(record)
            if record:
                yield record
            if session.trouble:
                continue
            memory.look(stop)
        if session.finished and not session.validation_due:
            return
        if not ranks.agree(stop):
            session.advance(task)
            memory.stepped(stop)
        if ranks.agree(stop):
            session.save(None, always=session.tally.step > 0)
            raise stop.error(session.tally.step, worthwhile=memory.worthwhile)


def _went_back(session: Session, task: Task, stop: StopFlag, ranks: Ranks) -> bool:
    """Whether the run was in trouble and is out of it. Raises TrainingDivergedError where no remedy is left."""
    trouble = session.trouble
    if trouble is None:
        return False
    if not session.remedies_left:
        ranks.agree(stop, DIVERGED)
        raise session.diverged(trouble)
    session.go_back(trouble, task)
    ranks.agree(stop, GO_BACK)
    session.begin()
    return True
