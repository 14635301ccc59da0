"""The recogniser in the network: what it hears, what it is to spell, and how far its gradient reaches."""

from dataclasses import replace

import pytest
import torch

from tests.model.sizes import MELS, SYMBOLS, WITHOUT_DROPOUT, model_config, teacher_forced, three_utterances
from tts.config import Config
from tts.data.batch import Batch
from tts.losses.mutual_information import mutual_information_loss
from tts.losses.total import total_loss
from tts.model.frames import step_lengths
from tts.model.free_running import free_run
from tts.model.packing import Packing, packing
from tts.model.tacotron2 import Tacotron2
from tts.text.symbols import SymbolTable


def network(**knobs) -> Tacotron2:
    torch.manual_seed(0)
    model = Tacotron2(model_config(**(WITHOUT_DROPOUT | {"recogniser": 13, "recogniser_dropout": 0.0} | knobs)), symbols=SYMBOLS, mels=MELS)
    return model.double()


def batch() -> Batch:
    return three_utterances(12, 20, 3)


def order_of(one: Batch) -> Packing:
    """Of the steps at a reduction factor of 2."""
    return packing(step_lengths(one.mel_lengths_B, 2), -(-one.mel_BTM.shape[1] // 2))


def test_it_reads_what_the_mel_projection_reads():
    model = network(reduction_factor=2)
    read = []
    model.decoder.mel.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
    output = teacher_forced(model, batch())
    by_hand_ZC = model.recogniser.classes(torch.relu(model.recogniser.hidden(read[0])))
    torch.testing.assert_close(order_of(batch()).pack(output.recognition.logits_BSC), by_hand_ZC)
    assert output.recognition.logits_BSC.shape == (3, 10, SYMBOLS + 1)


def test_its_labels_are_the_spoken_symbols():
    table = SymbolTable.for_language("en")
    model = Tacotron2(model_config(recogniser=4), symbols=len(table), mels=MELS)
    model.recogniser.listen_for(table.spoken)
    texts = ["well, i'm here!", "...", "a  b"]
    encoded = [table.encode(text) for text in texts]
    lengths_B = torch.tensor([len(row) for row in encoded])
    symbols_BN = torch.zeros(3, 20, dtype=torch.long)
    for row, numbers in enumerate(encoded):
        symbols_BN[row, : len(numbers)] = torch.tensor(numbers)
    heard = model.recogniser.recognise(torch.zeros(3, 0, 15), symbols_BN, lengths_B)
    spelled = ["".join(table.symbols[n] for n in row[:length]) for row, length in zip(heard.labels_BN, heard.label_lengths_B, strict=True)]
    assert spelled == ["wellimhere", "", "ab"]
    twin = Tacotron2(model_config(recogniser=4), symbols=len(table), mels=MELS)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.recogniser.spoken_V, model.recogniser.spoken_V), "the checkpoint knows what is spoken"


def test_what_reaches_the_decoder_is_bounded_at_its_states():
    """Against two backward passes, one of each loss, added with the scale that their norms at z give."""
    one, share, weight = batch(), 0.01, 3.0
    model = network(reduction_factor=2).train()
    parameters, z = dict(model.named_parameters()), []
    model.decoder.mel.register_forward_pre_hook(lambda _module, inputs: z.append(inputs[0]))
    config = Config.model_validate({"model": {"reduction_factor": 2}, "mutual_information": {"weight": weight}})
    output = teacher_forced(model, one)
    losses = total_loss(output, one, config, step=0)
    main = losses.total - weight * losses.terms["mutual_information"]
    (d_main,) = torch.autograd.grad(main, z[0], retain_graph=True)
    heard = z[0].detach().requires_grad_()
    recognition = replace(output.recognition, logits_BSC=model.recogniser(order_of(one).unpack(heard)))
    (d_side,) = torch.autograd.grad(weight * mutual_information_loss(recognition, step_lengths(one.mel_lengths_B, 2)), heard)
    scale = float(share * d_main.norm() / d_side.norm())
    assert scale < 1
    gradients = {}
    for bound in (0.0, share, torch.inf):
        model.recogniser.bound.share = bound
        gradients[bound] = torch.autograd.grad(losses.total, list(parameters.values()), retain_graph=True)
        assert float(model.recogniser.bound.scale) == pytest.approx({0.0: 0.0, share: scale, torch.inf: 1.0}[bound], rel=1e-9)
    for name, alone, ours, free in zip(parameters, *gradients.values(), strict=True):
        expected = free if name.startswith("recogniser.") else alone + scale * (free - alone)  # the recogniser learns at its own pace
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("coarse", [0, 6])
def test_every_parameter_gets_a_gradient(coarse):
    config = Config.model_validate({"model": {"reduction_factor": 2, "coarse_reduction_factor": coarse}})
    model = network(reduction_factor=2, coarse_reduction_factor=coarse).train()
    model.recogniser.bound.share = 0.5
    total_loss(teacher_forced(model, batch()), batch(), config, step=0).total.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None or parameter.grad.abs().max() < 1e-12]
    assert without == []


def test_a_share_of_zero_only_listens():
    """The decoder learns as without a recogniser, which learns all the same."""
    plain, listening = network(reduction_factor=2, recogniser=0).train(), network(reduction_factor=2).train()
    listening.load_state_dict(plain.state_dict(), strict=False)
    listening.recogniser.bound.share = 0.0
    for model in (plain, listening):
        total_loss(teacher_forced(model, batch()), batch(), Config.model_validate({"model": {"reduction_factor": 2}}), step=0).total.backward()
    ours = dict(listening.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter.grad, ours[name].grad), name
    assert ours["recogniser.hidden.weight"].grad.any()


def test_it_hears_speech_without_a_recording_too():
    model, one = network(reduction_factor=2).eval(), batch()
    arguments = {"max_frames_B": torch.tensor([9, 14, 5]), "gate_threshold": 0.99}
    spoken = model.synthesise(one.symbols_BN, one.symbol_lengths_B, **arguments, seed=0)
    steps = -(-int(spoken.lengths_B.max()) // 2)
    assert spoken.recognition.logits_BSC.shape == (3, steps, SYMBOLS + 1)
    memory_BNE = model._memory(one.symbols_BN, one.symbol_lengths_B, None, None)
    run = free_run(model.decoder, memory_BNE, one.symbol_lengths_B, **arguments, generator=torch.Generator().manual_seed(0))
    # Fed with what it said, the decoder says it again.
    again = model(one.symbols_BN, one.symbol_lengths_B, model._outward(run.mel_BTM), spoken.lengths_B)
    torch.testing.assert_close(spoken.recognition.logits_BSC, again.recognition.logits_BSC)


def test_it_stays_in_float32_under_autocast():
    model = network(reduction_factor=2).float().train()
    one = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(one.symbols_BN, one.symbol_lengths_B, one.mel_BTM.float(), one.mel_lengths_B)
    assert output.mel_BTM.dtype != torch.bfloat16
    assert output.recognition.logits_BSC.dtype == torch.float32


def test_a_batch_without_frames_gives_nothing_to_hear():
    model = network(reduction_factor=2)
    output = model(torch.ones(2, 3, dtype=torch.long), torch.tensor([3, 2]), torch.zeros(2, 0, MELS).double(), torch.zeros(2).long())
    assert output.recognition.logits_BSC.shape == (2, 0, SYMBOLS + 1)


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_dropped_frames_are_the_corpus_mean(share):
    """The go frame stays, the target does, and nothing is dropped in eval mode."""
    torch.manual_seed(0)
    model = network(reduction_factor=1, recogniser=0, frame_drop=share).train()
    model.normalise_by(torch.full((MELS,), -5.0), torch.full((MELS,), 2.0))
    read = []
    model.decoder.prenet.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
    mel_BTM = torch.randn(4, 500, MELS).double()
    arguments = torch.ones(4, 3, dtype=torch.long), torch.full((4,), 3), mel_BTM, torch.full((4,), 500)
    model(*arguments)
    model.eval()(*arguments)
    dropped, kept = (frames_ZM.view(500, 4, MELS).transpose(0, 1) for frames_ZM in read)
    torch.testing.assert_close(kept[:, 1:], (mel_BTM[:, :-1] + 5) / 2)
    means_BS = (dropped == 0).all(2)
    assert torch.equal(dropped[~means_BS], kept[~means_BS])
    assert means_BS[:, 1:].double().mean().item() == pytest.approx(share, abs=0.04)
