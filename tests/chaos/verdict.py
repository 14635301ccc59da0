"""What a part of the chaos came to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Figures, and what is wrong."""

    figures: dict[str, float]
    wrong: tuple[str, ...]
    """What is not as it must be, in words."""
