"""What can go wrong, and the exit code that each case ends with.

The exit codes are a contract: Kubernetes' pod failure policy and the pipeline act on them.
A message names the thing that was wrong, its value, what is allowed and what to do.
"""


class TtsError(Exception):
    """Root of the errors that a person or a cluster can act on; everything else is a defect of ours."""

    exit_code = 1


class UsageError(TtsError):
    """A wrong option, configuration or combination of inputs."""

    exit_code = 64


class DataError(TtsError):
    """A corpus, feature store, checkpoint or study that cannot be used as it is."""

    exit_code = 65


class ServiceUnavailableError(TtsError):
    """A database, tracking server or object store that stayed out of reach after retries."""

    exit_code = 69


class TrainingDivergedError(TtsError):
    """Training that went wrong and has no remedy left (docs/recovery.md)."""

    exit_code = 70


class CannotWriteError(TtsError):
    """An output folder that is full, read-only or not a folder."""

    exit_code = 73


class PreemptedError(TtsError):
    """Stopped by SIGTERM; the work so far is saved and the same command goes on from there."""

    exit_code = 75


class TakenOverError(TtsError):
    """Another process has taken over what this one was doing: this one leaves it alone from now on."""

    exit_code = 75


INTERRUPTED = 130
"""Exit code after Ctrl-C."""
