from dataclasses import replace

import pytest
import torch

from tts.config import Config
from tts.config.load import override
from tts.data.batch import Batch
from tts.losses.consistency import attention_consistency_loss
from tts.losses.gate import gate_loss
from tts.losses.guided_attention import guided_attention_loss
from tts.losses.mel import mel_loss
from tts.losses.mutual_information import mutual_information_loss
from tts.losses.total import total_loss
from tts.model.decoder import DecoderOutput
from tts.model.output import Tacotron2Output
from tts.model.recogniser import Recognition

FACTOR, MELS = 3, 4


def batch_and_output(mel_lengths: list[int], dtype: torch.dtype = torch.float32) -> tuple[Batch, Tacotron2Output]:
    """Random tensors: three utterances of at most five symbols and seven frames; the output has nine frames in three steps."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    batch = Batch(
        ("a", "b", "c"), torch.ones(3, 5, dtype=torch.long), torch.tensor([5, 2, 3]), random(3, 7, MELS).detach().float(), torch.tensor(mel_lengths)
    )
    return batch, Tacotron2Output(random(3, 9, MELS), random(3, 9, MELS), random(3, 9), random(3, 3, 5).float().softmax(2))


def config(**knobs) -> Config:
    return override(Config(), {"model.reduction_factor": FACTOR} | {name.replace("__", "."): value for name, value in knobs.items()})


def test_terms_are_unweighted_and_the_total_is_their_weighted_sum():
    batch, output = batch_and_output([7, 1, 4])
    knobs = config(
        losses__mel="l1",
        losses__gate_weight=0.5,
        losses__gate_positive_weight=3.0,
        guided_attention__weight=4.0,
        guided_attention__sigma=0.3,
        guided_attention__hold_steps=10,
        guided_attention__decay_steps=10,
    )
    losses = total_loss(output, batch, knobs, step=15)
    expected = {
        "mel_before": mel_loss(output.mel_BTM, batch.mel_BTM, batch.mel_lengths_B, "l1"),
        "mel_after": mel_loss(output.mel_post_BTM, batch.mel_BTM, batch.mel_lengths_B, "l1"),
        "gate": gate_loss(output.gate_logits_BT, batch.mel_lengths_B, reduction_factor=FACTOR, positive_weight=3.0),
        "guided_attention": guided_attention_loss(output.alignment_BSN, batch.symbol_lengths_B, torch.tensor([3, 1, 2]), 0.3),
    }
    assert losses.terms == expected
    by_hand = expected["mel_before"] + expected["mel_after"] + 0.5 * expected["gate"] + 2.0 * expected["guided_attention"]
    torch.testing.assert_close(losses.total, by_hand)


@pytest.mark.parametrize("consistency", ["attention", "mel"])
def test_a_coarse_decoder_adds_its_own_terms_and_the_consistency(consistency):
    """Its output has ten frames in two steps, the other's nine in three."""
    batch, output = batch_and_output([7, 1, 4])
    coarse = DecoderOutput(torch.randn(3, 10, MELS), torch.randn(3, 10), torch.randn(3, 2, 5).softmax(2))
    knobs = config(
        model__coarse_reduction_factor=5,
        losses__gate_weight=0.5,
        losses__gate_positive_weight=3.0,
        double_decoder__consistency=consistency,
        double_decoder__weight=2.0,
        double_decoder__coarse_weight=0.3,
    )
    plain, losses = total_loss(output, batch, knobs, step=0), total_loss(replace(output, coarse=coarse), batch, knobs, step=0)
    lengths_B = batch.mel_lengths_B
    if consistency == "attention":
        alignments = output.alignment_BSN, coarse.alignment_BSN
        distance = attention_consistency_loss(*alignments, batch.symbol_lengths_B, lengths_B, reduction_factors=(FACTOR, 5))
    else:
        distance = mel_loss(output.mel_post_BTM, coarse.mel_BTM[:, :9], lengths_B, "mse")
    expected = {
        "coarse_mel": mel_loss(coarse.mel_BTM, batch.mel_BTM, lengths_B, "mse"),
        "coarse_gate": gate_loss(coarse.gate_logits_BT, lengths_B, reduction_factor=5, positive_weight=3.0),
        "consistency": distance,
    }
    assert losses.terms == plain.terms | expected
    added = 0.3 * (expected["coarse_mel"] + 0.5 * expected["coarse_gate"]) + 2.0 * expected["consistency"]
    torch.testing.assert_close(losses.total, plain.total + added)


def test_a_recogniser_adds_its_term_and_counts_whom_it_leaves_out():
    """Three steps: the first text has four labels, the last utterance no step at all."""
    batch, output = batch_and_output([7, 4, 0])
    recognition = Recognition(torch.randn(3, 3, 9), torch.tensor([[2, 3, 4, 5], [2, 2, 0, 0], [3, 0, 0, 0]]), torch.tensor([4, 1, 1]))
    knobs = config(model__recogniser=4, mutual_information__weight=0.7)
    plain, losses = total_loss(output, batch, knobs, step=0), total_loss(replace(output, recognition=recognition), batch, knobs, step=0)
    expected = mutual_information_loss(recognition, torch.tensor([3, 2, 0]))
    assert losses.terms == plain.terms | {"mutual_information": expected}
    assert losses.counts == {"left_out_utterances": 1}
    torch.testing.assert_close(losses.total, plain.total + 0.7 * expected)


def test_a_term_of_weight_zero_is_reported_but_not_minimised():
    batch, output = batch_and_output([7, 1, 4])
    losses = total_loss(output, batch, config(losses__gate_weight=0.0, guided_attention__weight=0.0), step=0)
    gradients = torch.autograd.grad(losses.total, [output.mel_BTM, output.gate_logits_BT, output.alignment_BSN], allow_unused=True)
    assert gradients[0].any()
    assert gradients[1] is gradients[2] is None
    assert losses.terms["gate"] > 0
    assert losses.terms["guided_attention"] > 0


def test_a_term_of_weight_zero_that_is_infinite_does_not_spoil_the_total():
    batch, output = batch_and_output([7, 1, 4])
    with torch.no_grad():
        output.gate_logits_BT[0, 0] = float("inf")
    losses = total_loss(output, batch, config(losses__gate_weight=0.0), step=0)
    assert losses.terms["gate"].isinf()
    assert losses.total.isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mel_lengths", [[7, 1, 4], [1, 1, 1], [7, 0, 0], [0, 0, 0]])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_finite_input_gives_finite_losses_and_gradients(dtype, mel_lengths, size):
    """One-frame utterances, rows of padding, a batch of padding; values at which float16 squares overflow."""
    batch, output = batch_and_output(mel_lengths, dtype)
    inputs = [(tensor.detach() * size).requires_grad_() for tensor in (output.mel_BTM, output.mel_post_BTM, output.gate_logits_BT)]
    scaled = Tacotron2Output(*inputs, output.alignment_BSN)
    losses = total_loss(scaled, batch, config(), step=0)
    assert losses.total.dtype == torch.float32
    assert all(term.dtype == torch.float32 and term.isfinite() for term in losses.terms.values())
    losses.total.backward()
    assert all(tensor.grad.isfinite().all() for tensor in inputs)
    if mel_lengths == [0, 0, 0]:
        assert losses.total == 0
