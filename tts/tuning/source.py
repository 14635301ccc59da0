"""Which code a trial runs: workers of one study must train, validate and judge alike.

A version number would not do: between two releases, and in a checkout, the code changes under one number. A revision kept by hand is forgotten.
So the fingerprint is taken of the source itself, as Python understands it: comments, docstrings and layout are left out, so that a better
sentence does not end a study, and anything else in the files that decide a trial's value counts.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import tts

DECISIVE = (
    "model", "losses", "training", "data", "diagnostics/aggregate.py", "diagnostics/attention.py", "diagnostics/gate.py",
    "evaluation/metrics.py", "evaluation/synthesis.py", "tuning/search/objective.py", "tuning/trials/child.py",
    "tuning/trials/free_running.py", "tuning/trials/spoken.py",
)  # fmt: skip
"""Below tts/: what is trained, how, on which batches, and how it is measured. Texts and audio are in the features, with their own fingerprint."""


@cache
def source_fingerprint() -> str:
    """The first 16 digits of a SHA-256 over the decisive files of this installation."""
    root = Path(tts.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(path for name in DECISIVE for path in _files(root / name)):
        digest.update(f"{file.relative_to(root).as_posix()}\n{essence(file.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()[:16]


def essence(source: str) -> str:
    """A module without what does not run: equal for two sources that differ in comments, docstrings and layout only."""
    return " ".join(_tokens(ast.parse(source)))


def _files(path: Path) -> Iterator[Path]:
    yield from path.rglob("*.py") if path.is_dir() else [path]


def _tokens(node: object) -> Iterator[str]:
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            if value is not None and value != []:  # fields that only newer versions of Python have are empty here
                yield name
                yield from _tokens(value)
    elif isinstance(node, list):
        yield "["
        for item in node:
            if not _is_text(item):
                yield from _tokens(item)
        yield "]"
    else:
        yield repr(node)


def _is_text(node: object) -> bool:
    """A docstring: a string that stands for itself does nothing."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
