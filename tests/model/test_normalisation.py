import torch

from tts.config import ModelConfig
from tts.model.tacotron2 import Tacotron2

MELS, SYMBOLS = 5, 9
SIZES = ModelConfig(
    symbol_embedding=6,
    encoder_convolutions=1,
    encoder_lstm=8,
    attention=4,
    location_filters=2,
    location_kernel=3,
    attention_lstm=7,
    prenet=6,
    prenet_dropout_at_inference=False,
    decoder_lstm=7,
    reduction_factor=2,
    postnet_channels=6,
    postnet_convolutions=2,
)


def test_the_network_sees_mean_zero_and_deviation_one_and_answers_in_log_mels():
    torch.manual_seed(0)
    model = Tacotron2(SIZES, symbols=SYMBOLS, mels=MELS).double().eval()
    symbols_BN, symbol_lengths_B = torch.randint(2, SYMBOLS, (2, 4)), torch.tensor([4, 3])
    mel_BTM, mel_lengths_B = torch.randn(2, 6, MELS).double() * 3 - 5, torch.tensor([6, 5])
    mean_M, deviation_M = torch.randn(MELS).double(), torch.rand(MELS).double() + 0.5

    plain = model(symbols_BN, symbol_lengths_B, (mel_BTM - mean_M) / deviation_M, mel_lengths_B)
    plain_speech = model.synthesise(symbols_BN, symbol_lengths_B, max_frames_B=torch.tensor([6, 5]), gate_threshold=0.99, seed=0)
    model.normalise_by(mean_M, deviation_M)
    inside = model(symbols_BN, symbol_lengths_B, mel_BTM, mel_lengths_B)
    speech = model.synthesise(symbols_BN, symbol_lengths_B, max_frames_B=torch.tensor([6, 5]), gate_threshold=0.99, seed=0)

    torch.testing.assert_close(inside.mel_BTM, plain.mel_BTM * deviation_M + mean_M)
    torch.testing.assert_close(inside.mel_post_BTM, plain.mel_post_BTM * deviation_M + mean_M)
    torch.testing.assert_close(inside.gate_logits_BT, plain.gate_logits_BT)
    torch.testing.assert_close(speech.mel_BTM[0], plain_speech.mel_BTM[0] * deviation_M + mean_M)


def test_a_band_that_never_varies_is_not_blown_up():
    model = Tacotron2(SIZES, symbols=SYMBOLS, mels=MELS)
    model.normalise_by(torch.full((MELS,), -11.5), torch.zeros(MELS))
    assert torch.equal(model.state_dict()["mel_deviation_M"], torch.full((MELS,), 0.1))
