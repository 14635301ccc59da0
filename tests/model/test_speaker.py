"""Who speaks shifts the encoder's output, and nothing else."""

import pytest
import torch

from tests.model.sizes import MELS, SYMBOLS, WITHOUT_DROPOUT, model_config
from tts.data.batch import length_mask
from tts.model.tacotron2 import Tacotron2

SPEAKERS_B = torch.tensor([2, 0, 2])
SYMBOL_LENGTHS_B = torch.tensor([3, 6, 1])
MEL_LENGTHS_B = torch.tensor([7, 9, 4])


def network(width: int = 4) -> Tacotron2:
    torch.manual_seed(0)
    config = model_config(reduction_factor=2, speaker_embedding=width, **WITHOUT_DROPOUT)
    return Tacotron2(config, symbols=SYMBOLS, mels=MELS, speakers=4).double()


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    symbols_BN = torch.randint(1, SYMBOLS, (3, 6), generator=generator) * length_mask(SYMBOL_LENGTHS_B, 6)
    mel_BTM = torch.randn(3, 9, MELS, generator=generator).double() * length_mask(MEL_LENGTHS_B, 9)[:, :, None]
    return symbols_BN, SYMBOL_LENGTHS_B, mel_BTM, MEL_LENGTHS_B


def test_equals_a_network_whose_memory_was_shifted_by_hand():
    model = network().eval()
    ours = model(*inputs(), SPEAKERS_B)
    table, projection = model.speaker.table.weight, model.speaker.projection.weight
    encoder = model.encoder.forward

    def shifted(symbols_BN, symbol_lengths_B):
        memory_BNE = encoder(symbols_BN, symbol_lengths_B)
        for row, speaker in enumerate(SPEAKERS_B.tolist()):
            for symbol in range(int(symbol_lengths_B[row])):
                memory_BNE[row, symbol] += projection @ table[speaker]
        return memory_BNE

    plain = network(width=0).eval()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("speaker.")})
    plain.encoder.forward = shifted
    with torch.no_grad():
        theirs = plain(*inputs())
    for name in ("mel_BTM", "mel_post_BTM", "gate_logits_BT", "alignment_BSN"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-12)


def test_memory_stays_zero_where_padded():
    model = network()
    memory_BNE = model._memory(*inputs()[:2], SPEAKERS_B, None)
    assert torch.equal(memory_BNE.ne(0).any(2), length_mask(SYMBOL_LENGTHS_B, 6))


def test_those_who_speak_get_a_gradient():
    model = network().train()
    output = model(*inputs(), SPEAKERS_B)
    (output.mel_post_BTM.square().sum() + output.gate_logits_BT.square().sum()).backward()
    assert model.speaker.table.weight.grad.ne(0).any(1).tolist() == [True, False, True, False]
    assert model.speaker.projection.weight.grad.abs().max() > 1e-9


def test_an_utterance_sounds_the_same_alone_and_beside_other_speakers():
    model = network().eval()
    with torch.no_grad():
        model.speaker.table.weight.mul_(20)
    symbols_BN, symbol_lengths_B = inputs()[:2]
    limits = {"max_frames_B": torch.tensor([6, 8, 4]), "gate_threshold": 1.0, "seed": 0}
    together = model.synthesise(symbols_BN, symbol_lengths_B, SPEAKERS_B, **limits)
    for row in range(3):
        one, symbols = slice(row, row + 1), int(symbol_lengths_B[row])
        mine = limits | {"max_frames_B": limits["max_frames_B"][one]}
        alone = model.synthesise(symbols_BN[one, :symbols], symbol_lengths_B[one], SPEAKERS_B[one], **mine)
        frames = int(alone.lengths_B[0])
        torch.testing.assert_close(together.mel_BTM[row, :frames], alone.mel_BTM[0, :frames], rtol=0, atol=1e-10)
        other = model.synthesise(symbols_BN[one, :symbols], symbol_lengths_B[one], SPEAKERS_B[one] ^ 1, **mine)
        assert (other.mel_BTM - alone.mel_BTM).abs().max() > 1e-3


def test_who_speaks_must_be_said_where_it_counts():
    with pytest.raises(ValueError, match="give speakers_B, who says each utterance"):
        network()(*inputs())
    network(width=0)(*inputs(), SPEAKERS_B)


def test_without_an_embedding_nothing_is_drawn_or_kept_for_it():
    plain, known = network(width=0).state_dict(), network().state_dict()
    assert {name for name in known if name not in plain} == {"speaker.table.weight", "speaker.projection.weight"}
    assert all(torch.equal(known[name], value) for name, value in plain.items())
