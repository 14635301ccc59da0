"""Which mechanism of attention a configuration asks for."""

from collections.abc import Callable

from tts.config import ModelConfig
from tts.model.attention.dynamic_convolution import DynamicConvolutionAttention
from tts.model.attention.forward import ForwardAttention
from tts.model.attention.location import LocationAttention
from tts.model.attention.mechanism import Attention

_MECHANISMS: dict[str, Callable[[ModelConfig], Attention]] = {
    "location": LocationAttention,
    "dynamic_convolution": DynamicConvolutionAttention,
    "forward": ForwardAttention,
}


def new_attention(config: ModelConfig) -> Attention:
    """With fresh weights."""
    return _MECHANISMS[config.attention_mechanism](config)
