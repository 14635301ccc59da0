"""Which mechanism of attention a configuration asks for."""

from tts.config import ModelConfig
from tts.model.attention.location import LocationAttention
from tts.model.attention.mechanism import Attention


def new_attention(config: ModelConfig) -> Attention:
    """With fresh weights."""
    return LocationAttention(config)
