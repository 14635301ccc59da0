"""The attention loop by chunks of steps, as CUDA graphs replay it, against the loop step by step and against the textbook's.

On a CPU the same chunks are made without being captured; what is left to CUDA is the capture itself.
"""

import copy
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model import textbook
from tests.model.sizes import MECHANISMS, MELS, SYMBOLS, WITHOUT_DROPOUT, model_config, teacher_forced, three_utterances
from tests.model.test_decoder import assert_same, scalar
from tts.model import cuda_graphs
from tts.model.cuda_graphs import LoopGraphs
from tts.model.decoder import Decoder
from tts.model.frames import step_lengths
from tts.model.packing import dense_packing, packing
from tts.model.tacotron2 import Tacotron2

requires_cuda = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]
DEVICES = ["cpu", pytest.param("cuda", marks=requires_cuda)]


def as_it_is(steps):
    """No capture: what is made again is the function itself."""
    return steps


def graphs_on(device: str, **settings) -> LoopGraphs:
    return LoopGraphs(**settings) if device == "cuda" else LoopGraphs(lambda: as_it_is, **settings)


def arguments_of(lengths: list[tuple[int, int]], width: int, device: str, dtype=torch.float64):
    """Memory, lengths of texts, mel and its lengths, of utterances of so many symbols and frames."""
    symbol_lengths_B, mel_lengths_B = torch.tensor(lengths, device=device).unbind(1)
    memory_BNE = torch.randn(len(lengths), int(symbol_lengths_B.max()), width, dtype=dtype).to(device).requires_grad_()
    mel_BTM = torch.randn(len(lengths), int(mel_lengths_B.max()), MELS, dtype=dtype).to(device)
    return memory_BNE, symbol_lengths_B, mel_BTM, mel_lengths_B


def twins(device: str, *, dtype=torch.float64, **knobs) -> tuple[Decoder, Decoder]:
    """Decoders with the same weights, the second one with graphs that it has not captured yet."""
    torch.manual_seed(0)
    plain = Decoder(model_config(**(WITHOUT_DROPOUT | knobs)), mels=MELS).to(device, dtype)
    graphed = copy.deepcopy(plain)
    graphed.graphs = graphs_on(device)
    return plain, graphed


@settings(deadline=None, max_examples=8)
@given(
    mechanism=st.sampled_from(MECHANISMS),
    lengths=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=9),
    factor=st.integers(1, 3),
    dropout=st.sampled_from([0.0, 0.4]),
    seed=st.integers(0, 99),
)
def test_chunks_equal_the_textbook_with_every_gradient(mechanism, lengths, factor, dropout, seed):
    """Fewer and more steps than a chunk has, fewer and more utterances and symbols than are rounded up to."""
    torch.manual_seed(seed)
    config = model_config(attention_mechanism=mechanism, reduction_factor=factor, **(WITHOUT_DROPOUT | {"attention_dropout": dropout}))
    decoder = Decoder(config, mels=MELS).double()
    decoder.graphs = graphs_on("cpu")
    memory_BNE, symbol_lengths_B, mel_BTM, mel_lengths_B = arguments_of(lengths, config.encoder_lstm, "cpu")
    decoder(memory_BNE, symbol_lengths_B, mel_BTM, mel_lengths_B)
    assert decoder.graphs.bytes == 0, "the first batch is decoded step by step"
    order = packing(step_lengths(mel_lengths_B, factor), -(-mel_BTM.shape[1] // factor))
    torch.manual_seed(seed)
    kept_ZH = torch.rand(len(order.index_Z), config.attention_lstm) >= dropout
    plain = textbook.decode(decoder, memory_BNE, symbol_lengths_B, mel_BTM, order.unpack(kept_ZH).transpose(0, 1))
    torch.manual_seed(seed)
    ours = decoder(memory_BNE, symbol_lengths_B, mel_BTM, mel_lengths_B)
    assert decoder.graphs.bytes > 0
    assert_same(decoder, memory_BNE, ours, textbook.until_the_end(plain, mel_lengths_B))


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("device", DEVICES)
def test_batches_of_several_shapes_in_a_row_equal_the_loop_step_by_step(device, mechanism):
    """Each graph is used again after others, with longer and with shorter utterances than before."""
    plain, graphed = twins(device, attention_mechanism=mechanism, attention_dropout=0.4)
    shapes = [[(9, 20), (3, 17)], [(33, 5)], [(2, 2)] * 9, [(7, 1), (1, 40), (5, 33)], [(9, 12)] * 9, [(30, 16)]]
    for seed, lengths in enumerate(shapes):
        arguments = arguments_of(lengths, 6, device)
        outputs = []
        for decoder in (plain, graphed):
            torch.manual_seed(seed)
            outputs.append(decoder(*arguments))
        assert_same_twins(plain, graphed, arguments[0], *outputs, tolerance=1e-10)
    assert graphed.graphs.bytes > 0


def assert_same_twins(plain, graphed, memory_BNE, expected, output, *, tolerance):
    """Outputs and every gradient, each gradient measured by its norm."""
    for name in ("mel_BTM", "gate_logits_BT", "alignment_BSN"):
        torch.testing.assert_close(getattr(output, name), getattr(expected, name), rtol=tolerance, atol=tolerance)
    theirs = torch.autograd.grad(scalar(expected), [memory_BNE, *plain.parameters()])
    mine = torch.autograd.grad(scalar(output), [memory_BNE, *graphed.parameters()])
    for name, one, other in zip(["memory", *dict(plain.named_parameters())], mine, theirs, strict=True):
        assert one.dtype == other.dtype
        assert (one - other).norm() <= tolerance * other.norm() + tolerance, f"gradient of {name}"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_precision_is_that_of_the_loop_step_by_step(device, dtype, tolerance, mechanism):
    plain, graphed = twins(device, dtype=torch.float32, attention_mechanism=mechanism)
    arguments = arguments_of([(4, 30), (3, 21)], 6, device, torch.float32)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        graphed(*arguments)
        expected, output = plain(*arguments), graphed(*arguments)
    assert output.alignment_BSN.dtype == torch.float32
    assert_same_twins(plain, graphed, arguments[0], expected, output, tolerance=tolerance)


@pytest.mark.parametrize("device", DEVICES)
def test_two_batches_may_be_under_way_at_once(device):
    """Their backward passes come after both forward passes, the earlier batch's last."""
    plain, graphed = twins(device)
    batches = [arguments_of([(4, 30), (3, 21)], 6, device), arguments_of([(5, 19), (2, 33)], 6, device)]
    graphed(*batches[0])
    under_way = [(plain(*arguments), graphed(*arguments), arguments[0]) for arguments in batches]
    for expected, output, memory_BNE in reversed(under_way):
        assert_same_twins(plain, graphed, memory_BNE, expected, output, tolerance=1e-10)


@pytest.mark.parametrize("device", DEVICES)
def test_a_backward_pass_may_be_made_twice(device):
    _, graphed = twins(device)
    arguments = arguments_of([(4, 30), (3, 21)], 6, device)
    graphed(*arguments)
    loss = scalar(graphed(*arguments))
    first = torch.autograd.grad(loss, list(graphed.parameters()), retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(loss, list(graphed.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_captured_without_gradients_learns_later(device):
    """As where a validation is the first to see a shape."""
    plain, graphed = twins(device)
    arguments = arguments_of([(4, 30), (3, 21)], 6, device)
    with torch.no_grad():
        graphed(*arguments)
        graphed(*arguments)
    assert_same_twins(plain, graphed, arguments[0], plain(*arguments), graphed(*arguments), tolerance=1e-10)


@pytest.mark.parametrize("device", DEVICES)
def test_both_decoders_of_a_network_have_graphs_of_their_own(device):
    torch.manual_seed(0)
    config = model_config(coarse_reduction_factor=3, recogniser=8, **WITHOUT_DROPOUT)
    plain = Tacotron2(config, symbols=SYMBOLS, mels=MELS).double().to(device)
    graphed = copy.deepcopy(plain)
    graphed.capture_loops(lambda: graphs_on(device))
    assert graphed.decoder.graphs is not graphed.coarse_decoder.graphs
    batch = three_utterances(19, 40, 2).to(torch.device(device))
    for _ in range(3):
        expected, output = teacher_forced(plain, batch), teacher_forced(graphed, batch)
        torch.testing.assert_close(output.mel_post_BTM, expected.mel_post_BTM, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(output.coarse.alignment_BSN, expected.coarse.alignment_BSN, rtol=1e-9, atol=1e-9)
        losses = [(one.mel_post_BTM.square().sum() + one.coarse.mel_BTM.square().sum()) for one in (expected, output)]
        gradients = [torch.autograd.grad(loss, list(net.parameters()), allow_unused=True) for loss, net in zip(losses, (plain, graphed), strict=True)]
        for (name, _), one, other in zip(plain.named_parameters(), *gradients, strict=True):
            assert (one is None) == (other is None), name
            if one is not None:
                torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("device", DEVICES)
def test_new_weights_are_read_by_graphs_of_before(device):
    """As after an update, and after going back to a checkpoint."""
    plain, graphed = twins(device)
    arguments = arguments_of([(4, 30), (3, 21)], 6, device)
    for _ in range(3):
        assert_same_twins(plain, graphed, arguments[0], plain(*arguments), graphed(*arguments), tolerance=1e-10)
        state = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in plain.state_dict().items()}
        plain.load_state_dict(state)
        graphed.load_state_dict(state)


@pytest.mark.parametrize("device", DEVICES)
def test_memory_does_not_grow_over_shapes(device):
    _, graphed = twins(device)
    one = arguments_of([(4, 30), (3, 21)], 6, device)
    graphed(*one)
    graphed(*one)
    room = 3 * graphed.graphs.bytes
    graphed.graphs = graphs_on(device, room=room)
    held = []
    for batch in (3, 9, 17, 25, 33, 4, 10, 18):
        lengths = [(4, 10)] * batch
        for _ in range(2):
            scalar(graphed(*arguments_of(lengths, 6, device))).backward()
            graphed.zero_grad()
        assert graphed.graphs.bytes <= room
        held.append(torch.cuda.memory_allocated() if device == "cuda" else graphed.graphs.bytes)
    assert max(held[5:]) <= max(held[:5])


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_forgotten_is_captured_anew(device):
    """As after a batch for which the device had too little memory."""
    plain, graphed = twins(device)
    arguments = arguments_of([(4, 30), (3, 21)], 6, device)
    for held in (False, True, False, True):
        if not held:
            graphed.graphs.forget()
        assert_same_twins(plain, graphed, arguments[0], plain(*arguments), graphed(*arguments), tolerance=1e-10)
        assert (graphed.graphs.bytes > 0) is held


def test_a_shape_that_does_not_fit_is_decoded_step_by_step_and_said_so_once(caplog):
    plain, graphed = twins("cpu")
    graphed.graphs = graphs_on("cpu", room=1000)
    arguments = arguments_of([(4, 30), (3, 21)], 6, "cpu")
    with caplog.at_level(logging.INFO, logger=cuda_graphs.__name__):
        for _ in range(4):
            assert_same_twins(plain, graphed, arguments[0], plain(*arguments), graphed(*arguments), tolerance=1e-10)
    assert graphed.graphs.bytes == 0
    first, reason = (record.getMessage() for record in caplog.records)
    assert first.startswith("the first batch of each shape is decoded step by step")
    assert "8 utterances of 32 symbols" in reason
    assert "over the limit of 1000" in reason


def test_what_buffers_take_is_known_before_they_are_made():
    """Room for exactly one shape is enough for it."""
    _, graphed = twins("cpu", attention_dropout=0.4)
    arguments = arguments_of([(4, 30), (3, 21)], 6, "cpu")
    graphed(*arguments)
    graphed(*arguments)
    needed = graphed.graphs.bytes
    for room, held in ((needed, needed), (needed - 1, 0)):
        graphed.graphs = graphs_on("cpu", room=room)
        graphed(*arguments)
        graphed(*arguments)
        assert graphed.graphs.bytes == held


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6), more=st.integers(0, 3), spare=st.integers(0, 3))
def test_rows_lie_in_a_dense_packing_as_step_and_utterance_say(lengths, more, spare):
    longest = max(lengths) + spare or 1
    order, batch = packing(torch.tensor(lengths), longest), len(lengths) + more
    dense = dense_packing(batch, longest, torch.device("cpu"))
    x_BS = torch.arange(len(lengths) * longest).view(len(lengths), longest) + 1
    spread_BS = dense.unpack(dense.spread(order.pack(x_BS), order.rows_among(batch)))
    expected_BS = torch.zeros(batch, longest, dtype=torch.int64)
    for place, utterance in enumerate(order.order_B.tolist()):
        expected_BS[place, : lengths[utterance]] = x_BS[utterance, : lengths[utterance]]
    assert torch.equal(spread_BS, expected_BS)
    assert [step.size for step in dense.schedule()] == [batch] * longest
