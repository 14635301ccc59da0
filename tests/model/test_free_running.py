import pytest
import torch

from tests.model.sizes import MECHANISMS, MELS, WITHOUT_DROPOUT, model_config
from tests.model.textbook import speak
from tts.data.batch import length_mask
from tts.model.attention.stepwise import Reading
from tts.model.decoder import Decoder
from tts.model.free_running import free_run

LENGTHS_B = torch.tensor([6, 2, 4])


def decoder_and_memory(seed: int = 0, **knobs) -> tuple[Decoder, torch.Tensor]:
    torch.manual_seed(seed)
    decoder = Decoder(model_config(**(WITHOUT_DROPOUT | knobs)), mels=MELS).double().eval()
    torch.nn.init.normal_(decoder.gate.weight)  # a gate that fires here and there
    return decoder, torch.randn(3, 6, 6).double()


def constant_gate(decoder: Decoder, logits: list[float]) -> None:
    torch.nn.init.zeros_(decoder.gate.weight)
    decoder.gate.bias.data = torch.tensor(logits).double()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_teacher_forcing_on_its_own_frames_repeats_it(factor, mechanism):
    """The two ways through the decoder agree: what was said is what the trained network would have said."""
    decoder, memory_BNE = decoder_and_memory(reduction_factor=factor, attention_mechanism=mechanism)
    run = free_run(decoder, memory_BNE, LENGTHS_B, max_frames_B=torch.tensor([13, 7, 1]), gate_threshold=1.0)
    assert run.lengths_B.tolist() == [13, 7, 1]
    forced = decoder(memory_BNE, LENGTHS_B, run.mel_BTM)
    valid_BT = length_mask(run.lengths_B, run.mel_BTM.shape[1])
    torch.testing.assert_close(forced.mel_BTM[valid_BT], run.mel_BTM[valid_BT], rtol=0, atol=1e-10)
    torch.testing.assert_close(forced.gate_logits_BT.sigmoid()[valid_BT], run.gate_BT[valid_BT], rtol=0, atol=1e-10)
    steps_BS = valid_BT[:, ::factor]
    torch.testing.assert_close(forced.alignment_BSN[steps_BS], run.alignment_BSN[steps_BS], rtol=0, atol=1e-10)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_equals_the_textbook(mechanism):
    decoder, memory_BNE = decoder_and_memory(prenet_dropout=0.5, attention_mechanism=mechanism)
    run = free_run(decoder, memory_BNE, LENGTHS_B, max_frames_B=torch.tensor([13, 7, 1]), gate_threshold=1.0, generator=generator(0))
    plain_BTM = speak(decoder, memory_BNE, LENGTHS_B, 13, generator(0))
    valid_BT = length_mask(run.lengths_B, 13)
    torch.testing.assert_close(run.mel_BTM[valid_BT], plain_BTM[valid_BT], rtol=0, atol=1e-10)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_an_utterance_is_the_same_alone_and_in_a_batch(mechanism, factor, dropout, seed):
    """Also with dropout on, also when it ends long before the others."""
    decoder, memory_BNE = decoder_and_memory(seed, reduction_factor=factor, prenet_dropout=dropout, attention_mechanism=mechanism)
    max_frames_B = torch.tensor([20, 9, 14])
    together = free_run(decoder, memory_BNE, LENGTHS_B, max_frames_B=max_frames_B, gate_threshold=0.8, generator=generator(seed))
    for row, symbols in enumerate(LENGTHS_B.tolist()):
        one = slice(row, row + 1)
        alone = free_run(
            decoder, memory_BNE[one, :symbols], LENGTHS_B[one], max_frames_B=max_frames_B[one], gate_threshold=0.8, generator=generator(seed)
        )
        assert alone.lengths_B.equal(together.lengths_B[one])
        assert alone.stopped_B.equal(together.stopped_B[one])
        frames = alone.mel_BTM.shape[1]
        torch.testing.assert_close(together.mel_BTM[one, :frames], alone.mel_BTM, rtol=0, atol=1e-10)
        torch.testing.assert_close(together.gate_BT[one, :frames], alone.gate_BT, rtol=0, atol=1e-10)
        steps = alone.alignment_BSN.shape[1]
        torch.testing.assert_close(together.alignment_BSN[one, :steps, :symbols], alone.alignment_BSN, rtol=0, atol=1e-10)
        assert not together.mel_BTM[one, frames:].any()


@pytest.mark.parametrize("seed", range(4))
def test_the_end_is_the_first_frame_over_the_threshold(seed):
    decoder, memory_BNE = decoder_and_memory(seed, reduction_factor=3)
    maximum, threshold = 15, 0.7
    free = free_run(decoder, memory_BNE, LENGTHS_B, max_frames_B=torch.full((3,), maximum), gate_threshold=1.0)  # nothing exceeds 1
    run = free_run(decoder, memory_BNE, LENGTHS_B, max_frames_B=torch.full((3,), maximum), gate_threshold=threshold)
    for row in range(3):
        over = [frame for frame in range(maximum) if free.gate_BT[row, frame] > threshold]
        assert run.stopped_B[row] == bool(over)
        assert run.lengths_B[row] == (over[0] + 1 if over else maximum)
        torch.testing.assert_close(run.mel_BTM[row, : run.lengths_B[row]], free.mel_BTM[row, : run.lengths_B[row]], rtol=0, atol=1e-12)


def test_some_of_the_seeds_above_stop_and_some_do_not():
    stopped = []
    for seed in range(4):
        decoder, memory_BNE = decoder_and_memory(seed, reduction_factor=3)
        stopped += free_run(decoder, memory_BNE, LENGTHS_B, max_frames_B=torch.full((3,), 15), gate_threshold=0.7).stopped_B.tolist()
    assert {True, False} == set(stopped)


@pytest.mark.parametrize(
    ("maximum", "length", "stopped"),
    [(9, 2, True), (2, 2, True), (1, 1, False)],  # the gate fires at the second frame of three
)
def test_the_gate_stops_at_a_frame_within_the_step_unless_the_maximum_comes_first(maximum, length, stopped):
    decoder, memory_BNE = decoder_and_memory(reduction_factor=3)
    constant_gate(decoder, [-9.0, 9.0, 9.0])
    run = free_run(decoder, memory_BNE, LENGTHS_B, max_frames_B=torch.full((3,), maximum), gate_threshold=0.5)
    assert run.lengths_B.tolist() == [length] * 3
    assert run.stopped_B.tolist() == [stopped] * 3


def test_a_shut_gate_runs_to_each_utterances_own_maximum_and_no_step_further():
    decoder, memory_BNE = decoder_and_memory(reduction_factor=2)
    constant_gate(decoder, [-9.0, -9.0])
    run = free_run(decoder, memory_BNE, LENGTHS_B, max_frames_B=torch.tensor([3, 8, 5]), gate_threshold=0.5)
    assert run.lengths_B.tolist() == [3, 8, 5]
    assert not run.stopped_B.any()
    assert run.mel_BTM.shape == (3, 8, MELS)
    valid_BT = length_mask(run.lengths_B, 8)
    for cells in (run.mel_BTM.abs().sum(2), run.gate_BT):
        assert cells[valid_BT].gt(0).all()
        assert not cells[~valid_BT].any()
    torch.testing.assert_close(run.alignment_BSN.sum(2), length_mask(torch.tensor([2, 4, 3]), 4).double())


def test_the_generator_decides_dropout_and_nothing_else_does():
    decoder, memory_BNE = decoder_and_memory(prenet_dropout=0.5)

    def mel(seed: int) -> torch.Tensor:
        run = free_run(decoder, memory_BNE, LENGTHS_B, max_frames_B=torch.full((3,), 6), gate_threshold=1.0, generator=generator(seed))
        return run.mel_BTM

    first = mel(1)
    torch.rand(5)
    before = torch.get_rng_state()
    assert torch.equal(mel(1), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(mel(2), first)
    decoder.prenet.dropout_at_inference = False
    assert torch.equal(mel(1), mel(2))


def test_dropout_at_inference_is_the_average_over_all_masks():
    """Every mask of the hidden layer is as likely as any other, and kept cells are scaled to keep the mean."""
    decoder, _ = decoder_and_memory(prenet_dropout=0.5)
    frames_BM = torch.randn(4, MELS).double()
    source = generator(0)
    mean_BP = torch.stack([decoder.prenet.synthesise(frames_BM, source) for _ in range(20_000)]).mean(0)
    hidden_BP = torch.relu(decoder.prenet.layers[0](frames_BM))
    masks = torch.cartesian_prod(*[torch.tensor([0.0, 2.0]).double()] * hidden_BP.shape[1])
    expected_BP = torch.stack([torch.relu(decoder.prenet.layers[1](hidden_BP * mask_P)) for mask_P in masks]).mean(0)
    torch.testing.assert_close(mean_BP, expected_BP, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("seed", range(3))
def test_monotonic_attention_stays_or_moves_on_by_one_symbol(mechanism, seed):
    """From the first on, within each utterance, with no weight but on the last one read and the next; also long after its end of text."""
    decoder, memory_BNE = decoder_and_memory(seed, attention_mechanism=mechanism, prenet_dropout=0.5)
    frames_B = torch.tensor([40, 25, 33])
    run = free_run(decoder, memory_BNE, LENGTHS_B, max_frames_B=frames_B, gate_threshold=1.0, generator=generator(seed), monotonic=True)
    for alignment_SN, frames, symbols in zip(run.alignment_BSN, frames_B.tolist(), LENGTHS_B.tolist(), strict=True):
        places = alignment_SN[:frames].argmax(1)
        assert alignment_SN[0].tolist() == [1, 0, 0, 0, 0, 0]
        for before, weights_N in zip(places[:-1], alignment_SN[1:frames], strict=True):
            assert not weights_N[:before].any()
            assert not weights_N[before + 2 :].any()
        assert places.max() < symbols
        assert set(places.diff().tolist()) <= {0, 1}


def test_monotonic_attention_moves_in_some_of_the_runs_above_and_reaches_an_end():
    moved, ended = set(), False
    for mechanism in MECHANISMS:
        decoder, memory_BNE = decoder_and_memory(0, attention_mechanism=mechanism)
        run = free_run(decoder, memory_BNE, LENGTHS_B, max_frames_B=torch.full((3,), 40), gate_threshold=1.0, monotonic=True)
        places_BS = run.alignment_BSN.argmax(2)
        moved |= set(places_BS.diff().unique().tolist())
        ended = ended or bool((places_BS[:, -1] == LENGTHS_B - 1).any())
    assert moved == {0, 1}
    assert ended


def test_monotonic_attention_opens_the_symbol_with_most_weight_and_the_next():
    reading = Reading(length_mask(torch.tensor([4, 1]), 4))
    assert reading.open_BN.tolist() == [[True, False, False, False]] * 2
    for weights_N, expected in (
        ([1, 0, 0, 0], [True, True, False, False]),
        ([0.5, 0.5, 0, 0], [True, True, False, False]),  # of equals the first: it stays
        ([0.4, 0.6, 0, 0], [False, True, True, False]),
        ([0, 0.3, 0.7, 0], [False, False, True, True]),
        ([0, 0, 0.1, 0.9], [False, False, False, True]),
    ):
        reading.read(torch.tensor([weights_N, [1, 0, 0, 0]]))
        assert reading.open_BN.tolist() == [expected, [True, False, False, False]]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_monotonic_attention_is_the_same_alone_and_in_a_batch(mechanism):
    decoder, memory_BNE = decoder_and_memory(2, attention_mechanism=mechanism)
    run = free_run(decoder, memory_BNE, LENGTHS_B, max_frames_B=torch.tensor([20, 9, 14]), gate_threshold=0.8, monotonic=True)
    for row, (symbols, frames) in enumerate(zip(LENGTHS_B.tolist(), run.lengths_B.tolist(), strict=True)):
        one = slice(row, row + 1)
        alone = free_run(decoder, memory_BNE[one, :symbols], LENGTHS_B[one], max_frames_B=run.lengths_B[one], gate_threshold=0.8, monotonic=True)
        torch.testing.assert_close(run.mel_BTM[one, :frames], alone.mel_BTM, rtol=0, atol=1e-10)
        torch.testing.assert_close(run.alignment_BSN[one, :frames, :symbols], alone.alignment_BSN, rtol=0, atol=1e-10)
