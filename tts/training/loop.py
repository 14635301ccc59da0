"""The training loop: when things happen. What one update is, is in step.py; what is written down, in session.py.

Steps count from 1. A run that is stopped between any two steps and started again makes the same updates, bit for bit on a CPU with the same number
of threads: dropout and batches are functions of the step (randomness.py, data/batches.py), all else is in the checkpoint.
"""

from collections.abc import Generator
from pathlib import Path

from tts.config import Config
from tts.data.store import FeatureStore
from tts.progress import Progress, Task
from tts.training.cores import set_threads
from tts.training.preemption import StopFlag
from tts.training.run_folder import holding
from tts.training.session import Session
from tts.training.validation import Measure, ValidationRecord


def train(
    store: FeatureStore, config: Config, run: Path, *, progress: Progress, stop: StopFlag, measure: Measure | None = None
) -> Generator[ValidationRecord, None, None]:
    """Trains until `training.steps`, from the newest checkpoint in `run` if there is one; yields a record after each validation.

    `measure` is asked at each validation for more metrics of the network, which is in eval mode then; training goes on as without it.

    A caller may leave the loop; the folder can be resumed. Nothing is done before the first record is asked for.
    Raises UsageError (features, device or an earlier run that do not fit), DataError (damaged run), CannotWriteError,
    TrainingDivergedError, and PreemptedError or KeyboardInterrupt once the flag is set and a checkpoint is written.
    """
    store.check(config)
    set_threads(config.training.threads)
    with holding(run):
        session = Session(store, config, run, measure)
        with session.noting_the_end(), progress.task("Training", total=config.training.steps, done=session.tally.step) as task:
            yield from _records(session, task, stop)


def _records(session: Session, task: Task, stop: StopFlag) -> Generator[ValidationRecord, None, None]:
    while True:
        # First what the step just made left to do: a resumed run may have been stopped before its validation.
        if session.tally.step > 0:
            record = session.validate()
            session.save(record)
            if record:
                yield record
        if session.finished:
            return
        if not stop:
            session.advance(task)
        if stop:
            session.save(None, always=session.tally.step > 0)
            raise stop.error(session.tally.step)
