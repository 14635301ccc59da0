"""Network sizes at which a float64 step takes milliseconds; no two are equal, so that a mixed-up axis fails."""

from tts.config import ModelConfig

SYMBOLS, MELS = 11, 5

MECHANISMS = ("location", "dynamic_convolution", "forward")

WITHOUT_DROPOUT = {
    "encoder_dropout": 0.0,
    "attention_dropout": 0.0,
    "prenet_dropout": 0.0,
    "decoder_dropout": 0.0,
    "postnet_dropout": 0.0,
}


def model_config(**knobs: float | str) -> ModelConfig:
    """A small network; dropout as in the paper unless `WITHOUT_DROPOUT` is passed."""
    sizes = {
        "symbol_embedding": 7,
        "encoder_convolutions": 2,
        "encoder_lstm": 6,
        "attention": 8,
        "location_filters": 3,
        "location_kernel": 5,
        "static_filters": 2,
        "dynamic_filters": 3,
        "filter_length": 5,
        "prior_length": 4,
        "attention_lstm": 10,
        "prenet": 4,
        "decoder_lstm": 9,
        "postnet_convolutions": 3,
        "postnet_channels": 12,
    }
    return ModelConfig.model_validate(sizes | knobs)
