"""`python -m pipelines.compile`: writes the pipeline's YAML, the same bytes anywhere."""

import sys
import tempfile
from pathlib import Path

from kfp import compiler

from pipelines.training import training
from tts.storage import writing

COMPILED = Path(__file__).parent / "compiled" / "training.yaml"


def compiled() -> bytes:
    """The YAML of the pipeline as it is in the source."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "training.yaml"
        compiler.Compiler().compile(training, str(path))
        return path.read_bytes()


def main() -> int:
    """Writes the file where it is not current."""
    content = compiled()
    current = COMPILED.exists() and COMPILED.read_bytes() == content
    if not current:
        with writing(COMPILED) as file:
            file.write(content)
    print(f"{COMPILED.relative_to(Path(__file__).parents[1])}: {'is current' if current else 'written'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
