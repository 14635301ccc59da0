"""Held-out metrics against NumPy, utterance by utterance."""

import numpy as np
import pytest
import torch

from tts.config.load import override
from tts.data.batches import collate, evaluation_batches
from tts.diagnostics.attention import attention_measures
from tts.diagnostics.recognition import edit_distance
from tts.losses.total import total_loss
from tts.training.validation import VALIDATION_METRICS, snapshot_path, validate, validation_metrics, write_snapshot

CPU = torch.device("cpu")


@pytest.fixture
def quiet(tiny):
    """Without the prenet's dropout in eval mode, so that an utterance's result does not depend on its place in a batch."""
    return override(tiny, {"model.prenet_dropout_at_inference": False})


def _validate(learner, store, config):
    batches = evaluation_batches(store, store.held_out, config.data, config.model.reduction_factor)
    return validate(learner.model, batches, config, 1, CPU)


def test_losses_equal_numpy_over_all_held_out_frames(new_run, store, quiet):
    learner, _ = new_run(quiet)
    metrics = _validate(learner, store, quiet)
    squares, cells, entropies, frames = 0.0, 0, 0.0, 0
    correct, on_time, diagonalities = [], [], []
    factor = quiet.model.reduction_factor
    for index in store.held_out:
        batch = collate(store, [index], factor)
        with torch.no_grad():
            output = learner.model.eval()(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B)
        length = len(store.mel(index))
        predicted, target = output.mel_post_BTM[0, :length].double().numpy(), store.mel(index).astype(np.float64)
        squares, cells = squares + ((predicted - target) ** 2).sum(), cells + target.size
        logits = output.gate_logits_BT[0].double().numpy()
        labels = np.arange(len(logits)) >= length - 1
        entropies, frames = entropies + np.logaddexp(0, np.where(labels, -logits, logits)).sum(), frames + len(logits)
        correct.append((((logits > 0) == labels)[:length]).mean())
        first = np.flatnonzero(logits[:length] > 0)
        on_time.append(len(first) > 0 and length - 1 - first[0] <= length / 4)
        steps = torch.tensor([-(-length // factor)])
        diagonalities.append(float(attention_measures(output.alignment_BSN, batch.symbol_lengths_B, steps)["diagonality"]))
    assert metrics["mel_loss"] == pytest.approx(squares / cells, rel=1e-5)
    assert metrics["gate_loss"] == pytest.approx(entropies / frames, rel=1e-5)
    assert metrics["gate_on_time"] == pytest.approx(np.mean(on_time), rel=1e-6)
    assert metrics["gate_accuracy"] == pytest.approx(np.mean(correct), rel=1e-6)
    assert metrics["attention_diagonality"] == pytest.approx(np.mean(diagonalities), rel=1e-5)
    assert tuple(metrics) == VALIDATION_METRICS


def test_a_recogniser_is_measured_by_the_letters_it_gets_wrong(new_run, store, quiet):
    """Pooled over all held-out texts, whose punctuation and spaces nobody has to spell."""
    config = override(quiet, {"model.recogniser": 9})
    learner, _ = new_run(config)
    learner.model.recogniser.listen_for(store.symbol_table.spoken)
    metrics = _validate(learner, store, config)
    assert tuple(metrics) == validation_metrics(config.model)
    errors = labels = 0
    for index in store.held_out:
        batch = collate(store, [index], config.model.reduction_factor)
        with torch.no_grad():
            output = learner.model.eval()(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B)
        blank = len(store.symbol_table)
        path = output.recognition.logits_BSC[0].argmax(1).tolist()
        said = [number for number, before in zip(path, [blank, *path], strict=False) if number not in (blank, before)]
        text = [number for number in store.symbols(index).tolist() if store.symbol_table.symbols[number].isalpha()]
        errors, labels = errors + edit_distance(said, text), labels + len(text)
    assert metrics["recogniser_error_rate"] == pytest.approx(errors / labels)


def test_batching_does_not_matter(new_run, store, quiet):
    learner, _ = new_run(quiet)
    together = _validate(learner, store, override(quiet, {"data.frame_budget": 100_000}))
    alone = _validate(learner, store, override(quiet, {"data.max_batch_size": 1}))
    for name in set(VALIDATION_METRICS) - {"loss"}:
        assert together[name] == pytest.approx(alone[name], rel=1e-5), name


def test_loss_is_what_training_minimises_at_that_step(new_run, store, quiet):
    config = override(quiet, {"losses.mel": "l1", "losses.gate_positive_weight": 3.0, "data.frame_budget": 100_000})
    learner, _ = new_run(config)
    (batch,) = evaluation_batches(store, store.held_out, config.data, config.model.reduction_factor)
    with torch.no_grad():
        output = learner.model.eval()(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B)
    for step in (1, 1200):
        expected = float(total_loss(output, batch, config, step).total)
        assert validate(learner.model, [batch], config, step, CPU)["loss"] == pytest.approx(expected, rel=1e-6)
    plain, l1 = _validate(learner, store, quiet), _validate(learner, store, config)
    assert l1["mel_loss"] == pytest.approx(plain["mel_loss"], rel=1e-6), "the metric is the squared error whatever is minimised"


def test_with_the_prenets_dropout_on_it_is_still_repeatable_and_leaves_the_model_alone(new_run, store, tiny):
    learner, _ = new_run(tiny)
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    first = _validate(learner, store, tiny)
    torch.rand(7)
    assert _validate(learner, store, tiny) == first
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.model.state_dict().items())


def test_a_network_that_is_not_finite_has_no_good_metric(new_run, store, tiny):
    learner, _ = new_run(tiny)
    with torch.no_grad():
        learner.model.encoder.lstm.weight_ih_l0.fill_(torch.nan)
    metrics = _validate(learner, store, tiny)
    assert not any(np.isfinite(value) for value in metrics.values()), metrics


def test_snapshot_holds_what_the_network_makes_of_the_first_held_out_utterances(new_run, store, quiet, tmp_path):
    learner, _ = new_run(quiet)
    batch = collate(store, store.held_out[:2], quiet.model.reduction_factor)
    path = snapshot_path(tmp_path, 3)
    write_snapshot(path, learner.model, batch, [store.texts[index] for index in store.held_out[:2]], CPU)
    assert path == tmp_path / "snapshots" / "step-00000003.npz"
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    with torch.no_grad():
        output = learner.model.eval()(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B)
    assert arrays["ids_B"].tolist() == [store.ids[index] for index in store.held_out[:2]]
    assert arrays["texts_B"].tolist() == [store.texts[index] for index in store.held_out[:2]]
    assert arrays["symbol_lengths_B"].tolist() == [len(store.symbols(index)) for index in store.held_out[:2]]
    lengths = [len(store.mel(index)) for index in store.held_out[:2]]
    assert arrays["mel_lengths_B"].tolist() == lengths
    assert arrays["step_lengths_B"].tolist() == [-(-length // quiet.model.reduction_factor) for length in lengths]
    assert arrays["gate_BT"].shape == arrays["mel_BTM"].shape[:2] == arrays["mel_target_BTM"].shape[:2]
    np.testing.assert_allclose(arrays["alignment_BSN"], output.alignment_BSN.numpy(), atol=1e-6)
    np.testing.assert_allclose(arrays["gate_BT"], 1 / (1 + np.exp(-output.gate_logits_BT.numpy())), atol=1e-6)
    for row, index in enumerate(store.held_out[:2]):
        np.testing.assert_array_equal(arrays["mel_target_BTM"][row, : lengths[row]], store.mel(index))
        np.testing.assert_allclose(arrays["mel_BTM"][row, : lengths[row]], output.mel_post_BTM[row, : lengths[row]].numpy(), atol=1e-5)
