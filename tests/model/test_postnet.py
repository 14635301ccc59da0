import torch
from torch.nn import functional

from tests.model.sizes import MELS, model_config
from tts.model.convolution import ConvolutionBlock
from tts.model.postnet import Postnet


def by_hand(block: ConvolutionBlock, x_BCL: torch.Tensor) -> torch.Tensor:
    """Convolution and batch norm of one layer, with torch's own functions, as in eval mode."""
    weight, norm = block.convolution.weight, block.norm
    convolved_BCL = functional.conv1d(x_BCL, weight, padding=weight.shape[2] // 2)
    return functional.batch_norm(convolved_BCL, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def test_is_a_residual_with_tanh_after_all_but_the_last_convolution():
    torch.manual_seed(0)
    postnet = Postnet(model_config(postnet_convolutions=4), mels=MELS).double().train()
    mel_BTM, lengths_B = torch.randn(2, 9, MELS).double(), torch.tensor([9, 9])
    postnet(mel_BTM, lengths_B)  # statistics of its own
    postnet.eval()
    x_BCT = mel_BTM.transpose(1, 2)
    for block in postnet.convolutions[:-1]:
        x_BCT = torch.tanh(by_hand(block, x_BCT))
    expected_BTM = mel_BTM + by_hand(postnet.convolutions[-1], x_BCT).transpose(1, 2)
    torch.testing.assert_close(postnet(mel_BTM, lengths_B), expected_BTM, rtol=0, atol=1e-10)


def test_dropout_reaches_the_last_convolution_too():
    """As in NVIDIA/tacotron2: about half of the residual's cells are zero."""
    torch.manual_seed(0)
    postnet = Postnet(model_config(postnet_dropout=0.5), mels=MELS).train()
    mel_BTM = torch.randn(4, 200, MELS)
    unchanged = (postnet(mel_BTM, torch.full((4,), 200)) == mel_BTM).float().mean()
    assert 0.45 < unchanged < 0.55


def test_blocks_apply_their_activation_and_drop_out_in_training_only():
    torch.manual_seed(0)
    x_BCL, valid_B1L = torch.randn(2, 3, 8), torch.ones(2, 1, 8, dtype=torch.bool)
    for activation, function in (("relu", torch.relu), ("tanh", torch.tanh), ("linear", lambda y: y)):
        block = ConvolutionBlock(3, 4, kernel=3, activation=activation, dropout=0.5)
        assert not torch.equal(block(x_BCL, valid_B1L), block(x_BCL, valid_B1L))
        block.eval()
        torch.testing.assert_close(block(x_BCL, valid_B1L), function(by_hand(block, x_BCL)))
