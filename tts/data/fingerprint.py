"""What a feature store was made from, in one short hash."""

import hashlib
import json

from tts.config import Config
from tts.text.symbols import SymbolTable

REVISION = 3
"""Raised when the same configuration and corpus would give other features than before."""


def fingerprint(config: Config, symbols: SymbolTable, corpus: str) -> str:
    """First 16 hex digits of a SHA-256 over everything that decides what a store holds.

    That is text, audio and quality knobs, the split, the symbol table and the corpus' content (its digest); batch sizes do not count.
    """
    knobs = config.model_dump(mode="json", include={"text", "audio", "quality"})
    split = config.data.model_dump(mode="json", include={"held_out_share", "held_out_max", "split_seed"})
    content = {"revision": REVISION, "knobs": knobs, "split": split, "symbols": symbols.fingerprint, "corpus": corpus}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
