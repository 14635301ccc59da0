"""A batch, and how utterances become one.

Shape letters: B batch, N symbols, T frames (padded to a multiple of the reduction factor), M mels.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Whole:
    """A batch that several processes share, each of which has a part of its utterances."""

    ids: tuple[str, ...]
    mel_lengths_B: Tensor
    """int64, true frames."""


@dataclass(frozen=True)
class Batch:
    """Utterances of different lengths side by side. Everything downstream masks by the true lengths."""

    ids: tuple[str, ...]
    symbols_BN: Tensor
    """int64; 0 where padded."""
    symbol_lengths_B: Tensor
    """int64, end-of-sequence symbol included."""
    mel_BTM: Tensor
    """float32 log magnitudes; 0 where padded."""
    mel_lengths_B: Tensor
    """int64, true frames."""
    part_of: Whole | None = None
    """What means are taken over, where this is one process's part of it; such a part may have no utterance."""
    speakers_B: Tensor | None = None
    """int64, who speaks, by the number in the feature store; None where nobody tells them apart."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("symbols_BN", "symbol_lengths_B", "mel_BTM", "mel_lengths_B")}
        whole = self.part_of and replace(self.part_of, mel_lengths_B=self.part_of.mel_lengths_B.to(device))
        speakers_B = None if self.speakers_B is None else self.speakers_B.to(device)
        return replace(self, **moved, part_of=whole, speakers_B=speakers_B)

    @property
    def all_ids(self) -> tuple[str, ...]:
        """Those of the whole batch."""
        return self.part_of.ids if self.part_of else self.ids

    @property
    def all_mel_lengths(self) -> Tensor:
        """(B,) int64 of the whole batch, true frames."""
        return self.part_of.mel_lengths_B if self.part_of else self.mel_lengths_B

    @property
    def frames(self) -> int:
        """Real frames, padding not counted."""
        return int(self.mel_lengths_B.sum())


def length_mask(lengths_B: Tensor, size: int) -> Tensor:
    """(B, size) bool: True inside each row's true length."""
    return torch.arange(size, device=lengths_B.device) < lengths_B[:, None]
