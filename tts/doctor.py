"""What works on this machine: each check tries the thing itself."""

import importlib.metadata
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tts import storage
from tts.config import TrackingConfig
from tts.errors import ServiceUnavailableError, TtsError
from tts.memory import memory_limit
from tts.progress import Silent

NEEDED_DISK = 2 * 2**30
"""Bytes that a small corpus with its study, checkpoints and reports takes."""
NEEDED_MEMORY = 3 * 2**30
"""Bytes: the demo stays below."""


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    works: bool
    needed: bool
    """Whether training a voice here needs it."""
    detail: str
    exit_code: int = 0
    """What a command would end with that needs this."""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def examine(tracking: TrackingConfig) -> list[Check]:
    """Every check. Takes some seconds: torch and MLflow are loaded, a sentence is spoken, two databases are written."""
    with tempfile.TemporaryDirectory(prefix="tts-doctor-") as name:
        folder = Path(name)
        return [
            _check("python", _python),
            _check("torch", _torch),
            _check("bf16", _bf16, needed=False),
            _check("cuda", _cuda, needed=False),
            _check("espeak-ng", lambda: _espeak(folder), needed=False),
            _check("study database", lambda: _study(folder)),
            _check("tracking", lambda: _tracking(tracking, folder)),
            _check("disk", lambda: _disk(Path.cwd())),
            _check("memory", _memory),
            *([_check("object store", storage.greet, needed=False)] if storage.is_named() else []),
            _check("kfp", _kfp, needed=False),
        ]


def failure(checks: list[Check]) -> TtsError | None:
    """The error to end with when something needed does not work: ServiceUnavailableError where a service is all that is missing."""
    failed = [check for check in checks if check.needed and not check.works]
    if not failed:
        return None
    services_only = all(check.exit_code == ServiceUnavailableError.exit_code for check in failed)
    kind = ServiceUnavailableError if services_only else TtsError
    return kind(f"does not work here: {', '.join(check.name for check in failed)}")


def _check(name: str, look: Callable[[], str], *, needed: bool = True) -> Check:
    try:
        return Check(name, works=True, needed=needed, detail=look())
    except TtsError as error:
        return Check(name, works=False, needed=needed, detail=str(error), exit_code=error.exit_code)
    except (OSError, ImportError, RuntimeError) as error:
        return Check(name, works=False, needed=needed, detail=f"{type(error).__name__}: {error}", exit_code=1)


def _python() -> str:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        raise TtsError(f"{version}; 3.11, 3.12 or 3.13 is needed")
    return version


def _torch() -> str:
    import torch

    from tts.training.cores import usable_cores
    from tts.training.precision import choose_device

    device = choose_device("auto")
    ones = torch.ones(64, 64, device=device)
    if float((ones @ ones).sum()) != 64.0**3:
        raise TtsError(f"torch {torch.__version__} multiplies wrongly on {device}")
    return f"{torch.__version__} computes on {device}, {usable_cores()} CPU cores"


def _bf16() -> str:
    from tts.training.precision import choose_device, choose_precision

    device = choose_device("auto")
    return f"native on {choose_precision('bf16', device).device}"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        raise TtsError("none found: training runs on the CPU")
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _espeak(folder: Path) -> str:
    from tts.data.demo_corpus import write_demo_corpus

    made = write_demo_corpus(folder / "corpus", language="en", utterances=1, seed=0, progress=Silent())
    return f"spoke a sentence of {made.seconds:.1f} s"


def _study(folder: Path) -> str:
    from tts.tuning.database.storage import create_tables, open_storage, storage_url

    url = storage_url(folder, None)
    create_tables(url)
    open_storage(url)
    return "SQLite: created and opened"


def _tracking(config: TrackingConfig, folder: Path) -> str:
    from tts.tracking import open_tracker
    from tts.tracking.location import given_uri

    open_tracker(config, folder, must_answer=True)
    where = given_uri(config) or "a file beside the results"
    return f"{config.backend}: opened ({where.split('@')[-1]})"


def _disk(folder: Path) -> str:
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:.1f} GiB free in {folder}"
    if free < NEEDED_DISK:
        raise TtsError(f"{text}; {NEEDED_DISK / 2**30:.0f} GiB are needed")
    return text


def _memory() -> str:
    limit = memory_limit()
    text = f"{limit / 2**30:.1f} GiB for this process"
    if limit < NEEDED_MEMORY:
        raise TtsError(f"{text}; {NEEDED_MEMORY / 2**30:.0f} GiB are needed")
    return text


def _kfp() -> str:
    # Looked up, not imported: the product knows nothing of Kubeflow Pipelines.
    if importlib.util.find_spec("kfp") is None:
        raise TtsError("not installed: only `make demo` and the cluster need it")
    return importlib.metadata.version("kfp")
