import pytest
import torch

from tests.model.sizes import MELS, WITHOUT_DROPOUT, model_config
from tts.model.decoder import Decoder
from tts.model.recurrent import ROWS_AT_ONCE, RepeatedProduct, tanh


@pytest.mark.parametrize("rows", [1, 2, 3, 16, 70])
@pytest.mark.parametrize("inside", [False, True], ids=["whole", "columns of a wider tensor"])
def test_a_weight_laid_out_once_multiplies_like_any_other(rows, inside):
    torch.manual_seed(0)
    weight_OI, bias_O, x_BI, summand_BO = torch.randn(12, 37), torch.randn(12), torch.randn(rows, 60), torch.randn(rows, 12)
    x_BI = x_BI[:, 11:48] if inside else x_BI[:, :37].contiguous()
    exact_BO = (x_BI.double() @ weight_OI.double().t()).float()
    torch.testing.assert_close(RepeatedProduct(weight_OI)(x_BI), exact_BO)
    torch.testing.assert_close(RepeatedProduct(weight_OI.t().contiguous().t()).plus(x_BI, summand_BO), exact_BO + summand_BO)
    torch.testing.assert_close(RepeatedProduct(weight_OI, bias_O)(x_BI), exact_BO + bias_O)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tanh_is_tanh(dtype):
    x = torch.cat((torch.linspace(-20, 20, 4001), torch.tensor([0.0, -torch.inf, torch.inf, 1e-30, 1e30]))).to(dtype)
    assert (tanh(x).double() - torch.tanh(x).double()).abs().max() <= 2 * torch.finfo(dtype).eps
    assert torch.equal(tanh(x, out=torch.empty_like(x)), tanh(x))


def test_float32_on_its_own_path_follows_float64_over_more_steps_than_are_kept_at_once():
    """Outputs and every gradient; only float64, which the textbook is compared in, has no weights laid out for it."""
    config = model_config(**WITHOUT_DROPOUT)
    torch.manual_seed(0)
    decoder = Decoder(config, mels=MELS)
    twin = Decoder(config, mels=MELS).double()
    twin.load_state_dict(decoder.state_dict())
    frames = ROWS_AT_ONCE // 2
    memory_BNE, mel_BTM = torch.randn(4, 6, config.encoder_lstm), torch.randn(4, frames, MELS)
    lengths = torch.tensor([6, 2, 5, 3]), torch.tensor([frames, 40, frames - 1, frames // 2])
    single = decoder(memory_BNE, lengths[0], mel_BTM, lengths[1])
    double = twin(memory_BNE.double(), lengths[0], mel_BTM.double(), lengths[1])
    for name in ("mel_BTM", "gate_logits_BT", "alignment_BSN"):
        torch.testing.assert_close(getattr(single, name).double(), getattr(double, name), rtol=0, atol=1e-4)
    mine, its = (
        torch.autograd.grad(output.mel_BTM.square().mean() + output.alignment_BSN.square().sum(2).mean(), [*model.parameters()], allow_unused=True)
        for model, output in ((decoder, single), (twin, double))
    )
    for (name, _), one, other in zip(decoder.named_parameters(), mine, its, strict=True):
        if other is not None:
            assert (one.double() - other).norm() <= 1e-3 * other.norm() + 1e-7, name
