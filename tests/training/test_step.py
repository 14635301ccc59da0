"""One update: against Adam written out by hand, with a gradient scaler, and with numbers that are not finite."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from tts.config.load import override
from tts.losses.total import total_loss
from tts.training.randomness import reseed
from tts.training.schedule import learning_rate
from tts.training.step import train_step

KNOBS = {"optimiser.clip_norm": 0.5, "optimiser.weight_decay": 1e-2, "optimiser.warmup_steps": 3}


def _weights(learner):
    return {name: parameter.detach().clone() for name, parameter in learner.model.named_parameters()}


def _buffers(learner):
    return {name: buffer.clone() for name, buffer in learner.model.named_buffers()}


def _equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _gradients(learner, batch, config, step):
    """Of the loss at a step, by autograd alone; in float64 NumPy."""
    reseed(config.training.seed, step)
    learner.model.train().zero_grad()
    statistics = _buffers(learner)
    output = learner.model(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B)
    total_loss(output, batch, config, step).total.backward()
    for name, buffer in learner.model.named_buffers():
        buffer.copy_(statistics[name])
    return {name: p.grad.double().numpy().copy() for name, p in learner.model.named_parameters()}


def test_three_steps_equal_clipping_and_adam_written_out(new_run, tiny):
    config = override(tiny, KNOBS)
    learner, batch = new_run(config)
    knobs = config.optimiser
    first = {name: np.zeros(p.shape) for name, p in learner.model.named_parameters()}
    second = {name: np.zeros(p.shape) for name, p in learner.model.named_parameters()}
    for step in (1, 2, 3):
        gradients = _gradients(learner, batch, config, step)
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        expected = {}
        for name, weight in _weights(learner).items():
            gradient = gradients[name] * min(1.0, knobs.clip_norm / (norm + 1e-6)) + knobs.weight_decay * weight.double().numpy()
            first[name] = knobs.beta1 * first[name] + (1 - knobs.beta1) * gradient
            second[name] = knobs.beta2 * second[name] + (1 - knobs.beta2) * gradient**2
            mean, square = first[name] / (1 - knobs.beta1**step), second[name] / (1 - knobs.beta2**step)
            rate = knobs.learning_rate * step / 3
            expected[name] = weight.double().numpy() - rate * mean / (np.sqrt(square) + knobs.epsilon)
        result = train_step(learner, batch, config, step)
        assert float(result.gradient_norm) == pytest.approx(norm, rel=1e-4)
        assert norm > knobs.clip_norm, "clipping must have had something to do"
        assert result.learning_rate == learning_rate(knobs, step)
        for name, weight in _weights(learner).items():
            np.testing.assert_allclose(weight.numpy(), expected[name], rtol=0, atol=2e-6, err_msg=name)


def test_a_step_depends_on_its_number_and_not_on_what_was_drawn_before(new_run, tiny):
    results = []
    for disturbance in (0, 100):
        learner, batch = new_run(tiny)
        torch.rand(disturbance)
        results.append((train_step(learner, batch, tiny, 1), _weights(learner)))
    assert torch.equal(results[0][0].loss, results[1][0].loss)
    assert _equal(results[0][1], results[1][1])
    learner, batch = new_run(tiny)
    assert not torch.equal(train_step(learner, batch, tiny, 2).loss, results[0][0].loss)


BOTH_OBJECTIVES = {"model.coarse_reduction_factor": 7, "model.recogniser": 9, "mutual_information.weight": 100.0}


@pytest.mark.parametrize("objectives", [{}, BOTH_OBJECTIVES])
def test_clipping_happens_on_unscaled_gradients(new_run, tiny, objectives):
    """A scale that is a power of two changes no digit, so that a scaled step must equal the plain one bit for bit.

    Nor does it change how the recogniser's gradient is bounded.
    """
    config = override(tiny, KNOBS | objectives)
    plain, batch = new_run(config)
    scaled, _ = new_run(config)
    scaled = replace(scaled, scaler=GradScaler("cpu", init_scale=2.0**16))
    for step in (1, 2):
        expected, result = train_step(plain, batch, config, step), train_step(scaled, batch, config, step)
        assert torch.equal(result.gradient_norm, expected.gradient_norm)
        assert result.figures() == expected.figures()
        assert all(figure < 1 for name, figure in result.figures().items() if name == "mutual_information_scale")
        assert not result.overflow
    assert _equal(_weights(scaled), _weights(plain))


@pytest.mark.parametrize("objectives", [{}, BOTH_OBJECTIVES])
def test_an_overflow_of_the_scaler_is_no_anomaly_and_leaves_no_trace(new_run, tiny, objectives):
    config = override(tiny, objectives)
    learner, batch = new_run(config)
    learner = replace(learner, scaler=GradScaler("cpu", init_scale=2.0**127))
    weights, buffers = _weights(learner), _buffers(learner)
    result = train_step(learner, batch, config, 1)
    assert result.overflow
    assert result.anomaly is None
    assert learner.scaler.get_scale() == 2.0**126
    assert _equal(_weights(learner), weights)
    assert _equal(_buffers(learner), buffers)
    assert not learner.optimiser.state


def test_gradients_that_overflow_without_being_enlarged_are_an_anomaly(new_run, tiny):
    """Or a scaler would halve its scale for ever, and nobody would hear that no update is made."""
    learner, batch = new_run(tiny)
    learner = replace(learner, scaler=GradScaler("cpu", init_scale=1.0))
    learner.model.encoder.lstm.weight_hh_l0.register_hook(lambda gradient: gradient * torch.inf)
    result = train_step(learner, batch, tiny, 1)
    assert not result.overflow
    assert result.anomaly is not None
    assert result.anomaly.kind == "gradient"


def test_the_scaler_finds_a_scale_that_works(new_run, tiny):
    learner, batch = new_run(tiny)
    learner = replace(learner, scaler=GradScaler("cpu", init_scale=2.0**127))
    overflows = [train_step(learner, batch, tiny, step).overflow for step in range(1, 9)]
    assert overflows[0]
    assert not overflows[-1]
    assert overflows == sorted(overflows, reverse=True), "once found, the scale holds"


@pytest.mark.parametrize("scale", [None, 2.0**16])
def test_nan_in_a_mel_poisons_nothing_and_names_the_utterance(new_run, tiny, scale):
    learner, batch = new_run(tiny)
    if scale:
        learner = replace(learner, scaler=GradScaler("cpu", init_scale=scale))
    train_step(learner, batch, tiny, 1)
    weights, buffers, state = _weights(learner), _buffers(learner), _adam(learner)
    mel_BTM = batch.mel_BTM.clone()
    mel_BTM[1, 4, 7] = torch.nan
    result = train_step(learner, replace(batch, mel_BTM=mel_BTM), tiny, 2)
    assert result.anomaly is not None
    assert not result.overflow
    assert (result.anomaly.kind, result.anomaly.name, result.anomaly.value) == ("input", "mel", "nan")
    assert result.anomaly.utterances == (batch.ids[1],)
    assert _equal(_weights(learner), weights)
    assert _equal(_buffers(learner), buffers)
    assert _equal(_adam(learner), state)
    healthy = train_step(learner, batch, tiny, 3)
    assert healthy.anomaly is None
    assert torch.isfinite(healthy.loss)


def test_a_forward_pass_that_is_not_finite_would_poison_the_statistics(new_run, tiny):
    """The check of the checks above: without the step's care the running statistics are lost."""
    learner, batch = new_run(tiny)
    mel_BTM = batch.mel_BTM.clone()
    mel_BTM[1, 4, 7] = torch.nan
    learner.model.train()
    learner.model(batch.symbols_BN, batch.symbol_lengths_B, mel_BTM, batch.mel_lengths_B)
    assert not all(buffer.isfinite().all() for buffer in learner.model.buffers())


def test_a_module_that_returns_infinity_is_named(new_run, tiny):
    learner, batch = new_run(tiny)
    with torch.no_grad():
        learner.model.postnet.convolutions[2].norm.bias[0] = torch.inf
    result = train_step(learner, batch, tiny, 1)
    assert result.anomaly is not None
    assert (result.anomaly.kind, result.anomaly.name, result.anomaly.value) == ("module", "postnet.convolutions.2.norm", "inf")


def test_squares_that_overflow_behind_finite_modules_are_named_by_their_term(new_run, tiny):
    learner, batch = new_run(override(tiny, BOTH_OBJECTIVES))
    with torch.no_grad():
        learner.model.coarse_decoder.mel.bias[0] = 1e25
    result = train_step(learner, batch, override(tiny, BOTH_OBJECTIVES), 1)
    assert result.anomaly is not None
    assert (result.anomaly.kind, result.anomaly.name, result.anomaly.value) == ("loss", "coarse_mel", "inf")


def test_a_gradient_that_is_not_finite_is_named_by_its_parameter(new_run, tiny):
    learner, batch = new_run(tiny)
    poisoned = learner.model.encoder.lstm.weight_hh_l0
    hook = poisoned.register_hook(lambda gradient: gradient * torch.inf)
    weights = _weights(learner)
    result = train_step(learner, batch, tiny, 1)
    hook.remove()
    assert torch.isfinite(result.loss)
    assert result.anomaly is not None
    assert (result.anomaly.kind, result.anomaly.name) == ("gradient", "encoder.lstm.weight_hh_l0")
    assert result.anomaly.utterances == batch.ids
    assert _equal(_weights(learner), weights)


def test_statistics_that_overflow_behind_a_finite_loss_are_noticed(new_run, tiny):
    """An infinite variance divides its channel to zero: the loss looks well, and the running statistics are lost."""
    learner, batch = new_run(tiny)
    buffers = _buffers(learner)
    with torch.no_grad():
        learner.model.encoder.embedding.weight[1:] *= 1e25
    result = train_step(learner, batch, tiny, 1)
    assert result.anomaly is not None
    assert _equal(_buffers(learner), buffers)


def _adam(learner):
    state = learner.optimiser.state
    return {f"{number}.{name}": value.clone() for number, values in enumerate(state.values()) for name, value in values.items()}
