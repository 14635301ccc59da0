import pytest
import torch

from tests.model.sizes import SYMBOLS, WITHOUT_DROPOUT, model_config
from tts.model.encoder import Encoder


def test_memory_is_zero_past_the_text_and_unsorted_batches_are_welcome():
    torch.manual_seed(0)
    encoder = Encoder(model_config(), symbols=SYMBOLS)
    memory_BNE = encoder(torch.randint(1, SYMBOLS, (3, 8)), torch.tensor([2, 7, 5]))  # the batch is wider than its longest text
    assert memory_BNE.shape == (3, 8, 6)
    for row, length in enumerate([2, 7, 5]):
        assert memory_BNE[row, :length].abs().sum(1).gt(0).all()
        assert not memory_BNE[row, length:].any()


@pytest.mark.parametrize("training", [True, False])
def test_neither_the_amount_nor_the_content_of_padding_matters(training):
    """In training the batch statistics must not see it either, nor gradients."""
    torch.manual_seed(0)
    encoder = Encoder(model_config(**WITHOUT_DROPOUT), symbols=SYMBOLS).double().train(training)
    symbols_BN, lengths_B = torch.randint(1, SYMBOLS, (2, 5)), torch.tensor([5, 2])
    wide_BN = torch.cat((symbols_BN, torch.randint(1, SYMBOLS, (2, 3))), dim=1)
    wide_BN[1, 2:] = 3
    results = []
    for batch_BN in (symbols_BN, wide_BN):
        memory_BNE = encoder(batch_BN, lengths_B)[:, :5]
        results.append((memory_BNE, *torch.autograd.grad(memory_BNE.square().sum(), list(encoder.parameters()))))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_each_symbol_sees_both_directions():
    torch.manual_seed(0)
    encoder = Encoder(model_config(encoder_convolutions=1, encoder_kernel=1), symbols=SYMBOLS).eval()
    symbols_BN = torch.randint(1, SYMBOLS - 1, (1, 6))
    reference = encoder(symbols_BN, torch.tensor([6]))
    for changed, moved, still in ((0, slice(0, 3), slice(3, 6)), (5, slice(3, 6), slice(0, 3))):
        other_BN = symbols_BN.clone()
        other_BN[0, changed] = SYMBOLS - 1
        difference_NE = (encoder(other_BN, torch.tensor([6])) - reference)[0].abs()
        middle = difference_NE[2]  # channels 0-2 run forwards, 3-5 backwards
        assert middle[moved].gt(0).all()
        assert not middle[still].any()


def test_the_padding_symbol_is_embedded_as_zero_and_stays_so():
    encoder = Encoder(model_config(), symbols=SYMBOLS)
    encoder(torch.tensor([[0, 1, 2]]), torch.tensor([3])).sum().backward()
    assert not encoder.embedding.weight[0].any()
    assert not encoder.embedding.weight.grad[0].any()
    assert encoder.embedding.weight[1:].any(1).all()


def test_embeddings_start_with_the_variance_of_their_fans():
    """2 / (fan in + fan out), as NVIDIA/tacotron2; torch's own start has variance 1."""
    torch.manual_seed(0)
    weight = Encoder(model_config(symbol_embedding=256), symbols=101).embedding.weight[1:]
    assert weight.var().item() == pytest.approx(2 / (101 + 256), rel=0.05)
    assert abs(weight.mean().item()) < 0.002
