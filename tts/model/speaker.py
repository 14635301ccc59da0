"""Who speaks, as a vector for each speaker that the encoder's output is shifted by.

Added after a projection (ESPnet's `add`), not concatenated as in Coqui: the memory keeps its width, and attention, decoders and recogniser are
those of one speaker. The table is drawn as Coqui's.

Shape letters: B batch, E memory width.
"""

from torch import Tensor, nn

from tts.config import ModelConfig


class SpeakerEmbedding(nn.Module):
    """A table of `speaker_embedding` numbers for each speaker, and a linear layer to the memory's width."""

    def __init__(self, config: ModelConfig, *, speakers: int) -> None:
        super().__init__()
        self.table = nn.Embedding(speakers, config.speaker_embedding)
        self.projection = nn.Linear(config.speaker_embedding, config.encoder_lstm, bias=False)
        nn.init.normal_(self.table.weight, std=0.3)

    def forward(self, speakers_B: Tensor) -> Tensor:
        """(B,) int64 to (B, E)."""
        shift_BE: Tensor = self.projection(self.table(speakers_B))
        return shift_BE
