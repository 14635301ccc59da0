"""Network sizes at which a float64 step takes milliseconds; no two are equal, so that a mixed-up axis fails."""

import torch

from tts.config import ModelConfig
from tts.data.batch import Batch, length_mask
from tts.model.output import Tacotron2Output
from tts.model.tacotron2 import Tacotron2

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


def three_utterances(*frames: int) -> Batch:
    """Of 3, 7 and 1 symbols, in float64."""
    generator = torch.Generator().manual_seed(0)
    symbol_lengths_B, mel_lengths_B = torch.tensor([3, 7, 1]), torch.tensor(frames)
    symbols_BN = torch.randint(2, SYMBOLS, (3, 7), generator=generator) * length_mask(symbol_lengths_B, 7)
    longest = max(frames)
    mel_BTM = torch.randn(3, longest, MELS, generator=generator).double() * length_mask(mel_lengths_B, longest)[:, :, None]
    return Batch(("a", "b", "c"), symbols_BN, symbol_lengths_B, mel_BTM, mel_lengths_B)


def teacher_forced(model: Tacotron2, batch: Batch) -> Tacotron2Output:
    """What the network makes of a batch."""
    output: Tacotron2Output = model(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B)
    return output
