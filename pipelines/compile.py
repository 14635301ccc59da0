"""`python -m pipelines.compile`: writes the pipeline's YAML, the same bytes anywhere.

Without options it is the committed file. A platform whose image, volume or GPUs are others compiles one of its own:

    python -m pipelines.compile --image registry.example/tts@sha256:... --pvc tts-work --gpus 1 --output voices.yaml
"""

import sys
import tempfile
from pathlib import Path

import tyro

from components.image import IMAGE
from pipelines import COMPILED
from pipelines.placement import HEAVY, Placement, Resources
from pipelines.program import run
from pipelines.training import training
from tts.errors import UsageError
from tts.storage import writing

__all__ = ["COMPILED", "compiled"]


def compiled(placement: Placement | None = None, *, gpus: int = 0) -> bytes:
    """The YAML of the pipeline as it is in the source.

    Args:
        placement: What is settled at compile time; None: the defaults.
        gpus: What the form's field says first.
    """
    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "training.yaml"
        compiler.Compiler().compile(training(placement or Placement(), gpus=gpus), str(path))
        return path.read_bytes()


def write(
    *,
    output: Path = COMPILED,
    image: str = IMAGE,
    gpus: int = 0,
    accelerator: str = Placement.accelerator,
    pvc: str = "",
    pvc_path: str = Placement.pvc_path,
    cpu: str = "",
    memory: str = "",
    memory_limit: str = "",
) -> None:
    """Write the pipeline's YAML where it is not current.

    Args:
        output: File to write.
        image: Image of the steps and of the trials' pods, best by digest: the cache tells images apart by this text.
        gpus: What the form's field gpus says where nobody changes it.
        accelerator: Resource that a GPU is on this cluster.
        pvc: Claim (ReadWriteMany) that steps and trials mount, for `work` and the corpus; empty: none, they use the object store.
        pvc_path: Folder where it is mounted.
        cpu: CPUs that trials, training and feature extraction ask a node for; empty: trials as their template says, the others 500m.
        memory: Memory that they ask for; empty: trials as their template says, the others 1Gi.
        memory_limit: Memory beyond which the kernel ends them; empty: trials as their template says, the others 16Gi.
    """
    heavy = Resources(cpu or HEAVY.cpu, memory or HEAVY.memory, memory_limit or HEAVY.memory_limit)
    trials = Resources(cpu, memory, memory_limit)
    placement = Placement(image=image, accelerator=accelerator, pvc=pvc, pvc_path=pvc_path, heavy=heavy, trials=trials)
    if output == COMPILED and (placement, gpus) != (Placement(), 0):
        raise UsageError("the committed file is compiled without options; name another with --output")
    if gpus < 0:
        raise UsageError(f"--gpus must be at least 0, got {gpus}")
    if not pvc_path.startswith("/"):
        raise UsageError(f"--pvc_path must be an absolute path, got {pvc_path!r}")
    try:
        content = compiled(placement, gpus=gpus)
    except ValueError as error:  # an amount that Kubernetes would not take
        raise UsageError(f"--cpu {cpu} --memory {memory} --memory_limit {memory_limit}: {error}") from None
    current = output.exists() and output.read_bytes() == content
    if not current:
        with writing(output) as file:
            file.write(content)
    print(f"{output}: {'is current' if current else 'written'}")


def main() -> int:
    """The program: exit codes are those of `tts`."""
    return run(lambda: tyro.cli(write, prog="python -m pipelines.compile", use_underscores=True), "compile")


if __name__ == "__main__":
    sys.exit(main())
