"""corpus.json: what a run was given to train on."""

from dataclasses import dataclass
from pathlib import Path

from tts.diagnostics.json_files import read_object
from tts.errors import DataError


@dataclass(frozen=True)
class CorpusRecord:
    """Counted once, when the run began."""

    training: dict[str, int]
    """How often each symbol occurs in the clips that are trained on."""
    held_out: dict[str, int]
    """The same of those that are not."""
    dead: tuple[str, ...]
    """Those with a sound that no text to train on has: their vectors stay as they were drawn."""
    rejected: tuple[tuple[str, str], ...] | None
    """Clips that were left out and why; None where the feature store does not say."""
    utterances: dict[str, int]
    """Clips by what they are for: training, held_out."""


def read_corpus(path: Path) -> CorpusRecord | None:
    """None where there is no such file. Raises DataError."""
    if not path.is_file():
        return None
    values = read_object(path)
    try:
        symbols, rejected = values["symbols"], values["rejected"]
        return CorpusRecord(
            training={str(symbol): int(counts["training"]) for symbol, counts in symbols.items()},
            held_out={str(symbol): int(counts["held_out"]) for symbol, counts in symbols.items()},
            dead=tuple(str(symbol) for symbol in values["dead_symbols"]),
            rejected=None if rejected is None else tuple((str(item["id"]), str(item["reason"])) for item in rejected),
            utterances={str(name): int(count) for name, count in values["utterances"].items() if isinstance(count, int)},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} does not tell of a corpus ({type(error).__name__}: {error}); restore it from a copy, or remove it") from error
