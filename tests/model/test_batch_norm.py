import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tts.data.batch import length_mask
from tts.model.batch_norm import MaskedBatchNorm1d

CHANNELS = 4


def layers() -> tuple[MaskedBatchNorm1d, nn.BatchNorm1d]:
    ours, torchs = MaskedBatchNorm1d(CHANNELS).double(), nn.BatchNorm1d(CHANNELS).double()
    nn.init.normal_(torchs.weight)
    nn.init.normal_(torchs.bias)
    ours.load_state_dict(torchs.state_dict())
    return ours, torchs


def valid_cells(x_BCL: torch.Tensor, valid_B1L: torch.Tensor) -> torch.Tensor:
    """(1, C, cells): the valid positions of all rows, one after another."""
    return x_BCL.transpose(1, 2)[valid_B1L[:, 0]].t()[None]


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(lambda lengths: sum(lengths) > 1), seed=st.integers(0, 99))
def test_equals_torchs_layer_on_the_valid_cells_alone(lengths, seed):
    torch.manual_seed(seed)
    ours, torchs = layers()
    lengths_B = torch.tensor(lengths)
    valid_B1L = length_mask(lengths_B, 6)[:, None]
    for _ in range(2):  # twice: running statistics move from where they were
        x_BCL = (3 + 2 * torch.randn(len(lengths), CHANNELS, 6).double()).requires_grad_()
        mine, theirs = valid_cells(ours(x_BCL, valid_B1L), valid_B1L), torchs(valid_cells(x_BCL, valid_B1L))
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
        upstream = torch.randn_like(mine)
        gradients = [torch.autograd.grad(y, [x_BCL, *layer.parameters()], upstream) for y, layer in ((mine, ours), (theirs, torchs))]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    for name, value in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.eval()(x_BCL, valid_B1L), torchs.eval()(x_BCL), rtol=0, atol=1e-10)


def test_padding_changes_neither_values_nor_statistics():
    torch.manual_seed(0)
    ours, twin = layers()[0], MaskedBatchNorm1d(CHANNELS).double()
    twin.load_state_dict(ours.state_dict())
    x_BCL, valid_B1L = torch.randn(2, CHANNELS, 5).double(), length_mask(torch.tensor([5, 2]), 5)[:, None]
    noisy_BCL = torch.where(valid_B1L, x_BCL, 1e6)
    assert torch.equal(valid_cells(ours(x_BCL, valid_B1L), valid_B1L), valid_cells(twin(noisy_BCL, valid_B1L), valid_B1L))
    assert torch.equal(ours.running_mean, twin.running_mean)
    assert torch.equal(ours.running_var, twin.running_var)


@pytest.mark.parametrize("lengths", [[0, 0], [1, 0]])
def test_one_valid_cell_or_none_gives_the_bias(lengths):
    ours, _ = layers()
    valid_B1L = length_mask(torch.tensor(lengths), 3)[:, None]
    y_BCL = ours(torch.randn(2, CHANNELS, 3).double(), valid_B1L)
    torch.testing.assert_close(y_BCL[0, :, 0], ours.bias, rtol=0, atol=1e-10)
    assert ours.running_var.isfinite().all()


def test_half_precision_input_is_normalised_in_float32():
    layer = MaskedBatchNorm1d(CHANNELS)
    x_BCL = torch.randn(2, CHANNELS, 50).to(torch.bfloat16) + 100
    y_BCL = layer(x_BCL, length_mask(torch.tensor([50, 50]), 50)[:, None])
    assert y_BCL.dtype == torch.float32
    torch.testing.assert_close(y_BCL, nn.BatchNorm1d(CHANNELS)(x_BCL.float()))
