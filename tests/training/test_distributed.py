"""Several processes make the updates of one: gradients, statistics, losses, clipping, what is skipped and why."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training import rank_processes as processes
from tts.config.load import override
from tts.data.batches import TrainingBatches, shares
from tts.training.ranks import ALONE

STEPS = 4
WITHOUT_DROPOUT = {f"model.{name}_dropout": 0.0 for name in ("encoder", "attention", "prenet", "decoder", "recogniser", "postnet")}

cases = st.fixed_dictionaries(
    {
        "data.frame_budget": st.sampled_from([1200, 4000]),
        "data.max_batch_size": st.sampled_from([1, 2, 3, 5, 25]),
        "model.reduction_factor": st.sampled_from([3, 5]),
        "model.initial_reduction_factor": st.sampled_from([0, 6]),
        "training.reduction_interval": st.sampled_from([1, 2]),
        "model.coarse_reduction_factor": st.sampled_from([0, 7]),
        "double_decoder.consistency": st.sampled_from(["attention", "mel"]),
        "losses.mel": st.sampled_from(["mse", "l1"]),
        "losses.gate_weight": st.sampled_from([0.0, 1.0]),  # without: parameters that nobody has a gradient for
        "optimiser.clip_norm": st.sampled_from([0.1, 1e6]),
        "optimiser.weight_decay": st.sampled_from([0.0, 1e-2]),
        "training.seed": st.integers(0, 2**31 - 1),
    }
)

# On three ranks one has nothing to do, yet it takes part in the sums that bound the recogniser's gradient.
EVERYTHING_AT_ONCE = {
    "data.max_batch_size": 2,
    "model.coarse_reduction_factor": 7,
    "model.recogniser": 9,
    "model.reduction_factor": 3,
    "model.initial_reduction_factor": 4,
    "training.reduction_interval": 2,
    "model.style_tokens": 3,
    "model.style_heads": 2,
    "model.style_width": 8,
    "mutual_information.weight": 10.0,
    "mutual_information.gradient_share": 0.1,
    "optimiser.clip_norm": 0.1,
}


@given(frames=st.lists(st.integers(1, 900), min_size=1, max_size=40), ranks=st.integers(1, 9))
def test_a_batch_is_shared_out_whole_and_evenly(frames, ranks):
    frames = np.array(frames)
    parts = shares(frames, ranks)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(frames)))
    loads = [int(frames[part].sum()) for part in parts]
    assert max(loads) - min(loads) <= frames.max()
    assert sum(len(part) > 0 for part in parts) == min(ranks, len(frames))
    assert len(parts[0]) > 0
    assert all(part.tolist() == sorted(part) for part in parts)


@pytest.mark.parametrize("ranks", [2, 3])
def test_parts_are_the_batch_of_one_process(store, tiny, ranks):
    batches = TrainingBatches(store, store.train, tiny.data, 5, seed=3)
    for step in range(20):
        whole, parts = batches.batch(step), [batches.part(step, rank, ranks) for rank in range(ranks)]
        assert sorted(identity for part in parts for identity in part.ids) == sorted(whole.ids)
        for part in parts:
            assert part.all_ids == whole.ids
            assert torch.equal(part.all_mel_lengths, whole.mel_lengths_B)
            for row, identity in enumerate(part.ids):
                frames = int(part.mel_lengths_B[row])
                assert torch.equal(part.mel_BTM[row, :frames], whole.mel_BTM[whole.ids.index(identity), :frames])


def assert_close(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


def values_of(tiny, knobs):
    return override(tiny, WITHOUT_DROPOUT | knobs).model_dump(mode="json")


@pytest.mark.slow
@settings(max_examples=2)
@given(drawn=st.lists(cases, min_size=3, max_size=3))
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_make_the_updates_of_one_process(features, tiny, tmp_path_factory, ranks, drawn):
    """In float64. The last batches are smaller than the number of ranks, and with max_batch_size 1 all are."""
    values = [values_of(tiny, knobs) for knobs in (*drawn, EVERYTHING_AT_ONCE)]
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    expected = processes.updates(ALONE, features, values, STEPS, alone)
    results = processes.run(ranks, processes.updates, features, values, STEPS, together)
    for case in range(len(values)):
        weights, gradients = processes.left(alone, case, 0)
        for rank in range(ranks):
            ours = processes.left(together, case, rank)
            assert_close(ours[0], weights, 1e-9)
            for step in range(STEPS):
                assert_close(ours[1][step], gradients[step], 1e-10)
                assert results[rank][case][step]["figures"] == pytest.approx(expected[case][step]["figures"], rel=1e-10, abs=1e-10)
        for step in range(STEPS):
            shared = [identity for rank in range(ranks) for identity in results[rank][case][step]["utterances"]]
            assert sorted(shared) == sorted(expected[case][step]["utterances"])


def test_statistics_of_each_rank_alone_would_not_do(features, tiny, tmp_path):
    """The check of the check above."""
    values = [values_of(tiny, {"data.frame_budget": 4000})]
    (tmp_path / "together").mkdir()
    processes.updates(ALONE, features, values, 1, tmp_path)
    processes.run(2, processes.updates, features, values, 1, tmp_path / "together", processes.own_statistics)
    (gradients,), (ours,) = processes.left(tmp_path, 0, 0)[1], processes.left(tmp_path / "together", 0, 0)[1]
    assert max(float((ours[name] - gradients[name]).abs().max()) for name in gradients) > 1e-4


def test_dropout_is_a_function_of_step_and_rank(features, tiny, tmp_path):
    """The same case twice: bit for bit the same, on both ranks; and not what one process draws."""
    values = [override(tiny, {"data.frame_budget": 4000}).model_dump(mode="json")] * 2
    first, second = processes.run(2, processes.updates, features, values, 2, tmp_path)[0]
    assert first == second
    kept = [processes.left(tmp_path, case, rank)[0] for case in range(2) for rank in range(2)]
    for weights in kept[1:]:
        assert_close(weights, kept[0], 0)
    (alone,) = processes.updates(ALONE, features, values[:1], 2, tmp_path)
    assert alone[0]["figures"]["loss"] != pytest.approx(first[0]["figures"]["loss"], rel=1e-6)


def seed_that_meets(store, config):
    """The first utterance in the second step and in no other of the first three."""

    def met(seed):
        batches = TrainingBatches(store, store.train, config.data, config.model.reduction_factor, seed)
        return [store.train[0] in batches.utterances(step) for step in range(3)]

    return next(seed for seed in range(1000) if met(seed) == [False, True, False])


@pytest.mark.parametrize("size", [1, 25])
def test_what_is_not_finite_on_one_rank_skips_the_update_on_all(damaged_store, tiny, tmp_path, size):
    """With one utterance a batch the second rank is idle all the time."""
    knobs = {"data.frame_budget": 2500, "data.max_batch_size": size}
    values = [values_of(tiny, knobs | {"training.seed": seed_that_meets(damaged_store, override(tiny, knobs))})]
    (tmp_path / "together").mkdir()
    steps = 3
    (alone,) = processes.updates(ALONE, damaged_store.folder, values, steps, tmp_path)
    both = [results[0] for results in processes.run(2, processes.updates, damaged_store.folder, values, steps, tmp_path / "together")]
    expected = [result["anomaly"] for result in alone]
    assert [anomaly is not None for anomaly in expected] == [False, True, False]
    for rank in range(2):
        assert [result["anomaly"] for result in both[rank]] == expected
        assert_close(processes.left(tmp_path / "together", 0, rank)[0], processes.left(tmp_path, 0, 0)[0], 1e-9)


def test_who_has_it_names_it(features, tiny, tmp_path):
    values = [values_of(tiny, {"data.frame_budget": 4000})]
    one, other = (results[0][0] for results in processes.run(2, processes.updates, features, values, 1, tmp_path, processes.infinite_module))
    assert one["anomaly"] == other["anomaly"]
    assert (one["anomaly"].kind, one["anomaly"].name, one["anomaly"].value) == ("module", "encoder.embedding", "inf")
    assert one["anomaly"].utterances == (other["utterances"][1],)

    one, other = (results[0][0] for results in processes.run(2, processes.updates, features, values, 1, tmp_path, processes.infinite_gradient))
    assert one["anomaly"] == other["anomaly"]
    assert (one["anomaly"].kind, one["anomaly"].name) == ("gradient", "encoder.lstm.weight_hh_l0")
    assert sorted(one["anomaly"].utterances) == sorted(one["utterances"] + other["utterances"])


def test_a_rank_that_fails_within_a_step_ends_the_others(features, tiny, tmp_path):
    values = [values_of(tiny, {"data.frame_budget": 4000})]
    leader, failed = processes.run(2, processes.updates, features, values, 2, tmp_path, processes.out_of_memory)
    assert failed[0] == "DeviceMemoryError"
    assert "the device of rank 1 is out of memory in training" in failed[1]
    assert "lower data.frame_budget, now 4000, and start all of them again" in failed[1]
    assert leader[0] == "LostRankError"


def test_all_ranks_scale_gradients_alike(features, tiny, tmp_path):
    values = [values_of(tiny, {"data.frame_budget": 4000})]
    one, other = (results[0] for results in processes.run(2, processes.updates, features, values, 8, tmp_path, processes.bold_scaler))
    overflows = [result["overflow"] for result in one]
    assert overflows == [result["overflow"] for result in other]
    assert overflows[0]
    assert not overflows[-1]
    assert_close(processes.left(tmp_path, 0, 1)[0], processes.left(tmp_path, 0, 0)[0], 0)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_make_the_updates_of_one(features, tiny, tmp_path):
    values = [values_of(tiny, {"training.device": "cuda", "data.frame_budget": 4000, "data.max_batch_size": size}) for size in (1, 25)]
    (tmp_path / "together").mkdir()
    processes.updates(ALONE, features, values, 4, tmp_path)
    processes.run(2, processes.updates, features, values, 4, tmp_path / "together", device="cuda")
    for case in range(2):
        for rank in range(2):
            ours, theirs = processes.left(tmp_path / "together", case, rank), processes.left(tmp_path, case, 0)
            assert_close(ours[0], theirs[0], 1e-9)
            assert_close(ours[1][-1], theirs[1][-1], 1e-9)
