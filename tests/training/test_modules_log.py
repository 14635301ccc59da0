"""Gradients and updates by part against a plain loop over copies."""

import json
import math

import pytest
import torch
from torch.nn.utils import get_total_norm

from tts.config.load import override
from tts.errors import DataError
from tts.training.modules_log import ModulesLog, by_part, norm_of_each, part_of, read_modules
from tts.training.step import train_step

WHOLE = {
    "model.reduction_factor": 2,
    "model.initial_reduction_factor": 4,
    "training.reduction_interval": 2,
    "model.coarse_reduction_factor": 6,
    "model.recogniser": 9,
    "model.style_tokens": 3,
}
"""Every part there is, and layers of early frames that fall out of use."""


def _norm(tensors):
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def _figures(learner, result):
    return by_part(learner.model, learner.optimiser, result.gradient_norms, updated=result.anomaly is None)


@pytest.mark.parametrize("overrides", [{}, {"optimiser.weight_decay": 0.1, "optimiser.beta1": 0.5, "optimiser.epsilon": 1e-3}, WHOLE])
def test_equals_a_loop_over_copies(new_run, tiny, overrides):
    config = override(tiny, {"optimiser.warmup_steps": 1, "optimiser.clip_norm": 1e9, **overrides})
    learner, batch = new_run(config)
    for step in (1, 2, 3):
        before = {name: parameter.detach().clone() for name, parameter in learner.model.named_parameters()}
        result = train_step(learner, batch, config, step)
        figures = _figures(learner, result)
    given = {name: parameter for name, parameter in learner.model.named_parameters() if parameter.grad is not None}
    parts = {part_of(name) for name in before}
    assert all(values.keys() == parts for values in figures.values())
    for part in parts:
        own = {name: parameter.detach() for name, parameter in given.items() if part_of(name) == part}
        if not own:
            assert math.isnan(figures["gradient_norm"][part])
            continue
        added = _norm(parameter - before[name] for name, parameter in own.items())
        assert figures["gradient_norm"][part] == pytest.approx(_norm(given[name].grad for name in own), rel=1e-5), part
        assert figures["update_ratio"][part] == pytest.approx(added / _norm(own.values()), rel=1e-3), part
        assert figures["non_finite"][part] == 0


def test_norms_are_before_clipping_and_add_up_to_that_of_the_step(new_run, tiny):
    config = override(tiny, {"optimiser.clip_norm": 1e-3})
    learner, batch = new_run(config)
    result = train_step(learner, batch, config, 1)
    norms = _figures(learner, result)["gradient_norm"].values()
    assert math.sqrt(sum(norm**2 for norm in norms)) == pytest.approx(float(result.gradient_norm), rel=1e-5)
    assert float(result.gradient_norm) > 1e-3


def test_the_norm_of_a_step_is_torchs_to_the_bit():
    tensors = [torch.randn(size, generator=torch.Generator().manual_seed(size)) for size in (1, 7, 1000, 70_000)]
    assert torch.equal(torch.linalg.vector_norm(torch.stack(norm_of_each(tensors))), get_total_norm(tensors))


def test_a_skipped_update_has_no_ratio_and_its_gradients_are_counted(new_run, tiny):
    learner, batch = new_run(tiny)
    learner.model.decoder.prenet.layers[0].weight.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor([1]), torch.inf))
    learner.model.encoder.embedding.weight.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor([2]), torch.nan))
    result = train_step(learner, batch, tiny, 1)
    assert result.anomaly
    figures = _figures(learner, result)
    parts = figures["non_finite"].keys()
    expected = {"decoder.prenet": tiny.audio.mels, "encoder.embedding": tiny.model.symbol_embedding}
    assert figures["non_finite"] == dict.fromkeys(parts, 0) | expected
    assert {part for part, norm in figures["gradient_norm"].items() if not math.isfinite(norm)} == expected.keys()
    assert all(math.isnan(ratio) for ratio in figures["update_ratio"].values())


def test_parts_are_ten_to_fifteen_and_keep_their_names(new_run, tiny):
    learner, _ = new_run(override(tiny, WHOLE))
    assert list(dict.fromkeys(part_of(name) for name, _ in learner.model.named_parameters())) == [
        "style", "encoder.embedding", "encoder.convolutions", "encoder.lstm", "decoder.prenet", "decoder.attention_lstm", "decoder.attention",
        "decoder.decoder_lstm", "decoder.mel", "decoder.gate", "coarse_decoder", "recogniser", "postnet",
    ]  # fmt: skip


def test_lines_are_strict_json_and_are_cut_at_a_step(tmp_path):
    log = ModulesLog(tmp_path / "modules.jsonl")
    assert log.cut(0) == []
    for step in (1, 2, 4):
        log.append(step, {"gradient_norm": {"postnet": math.inf}, "update_ratio": {"postnet": math.nan}, "non_finite": {"postnet": step}})
    lines = [json.loads(line, parse_constant=pytest.fail) for line in log.path.read_text().splitlines()]
    assert lines[0] == {"step": 1, "gradient_norm": {"postnet": None}, "update_ratio": {"postnet": None}, "non_finite": {"postnet": 1}}
    assert read_modules(log.path) == lines
    with log.path.open("ab") as file:
        file.write(b'{"step": 5, "grad')
    assert log.cut(3) == lines[:2]
    assert read_modules(log.path) == lines[:2]


@pytest.mark.parametrize("line", ["no json", "{}", '{"step": 1}', '{"step": 1, "gradient_norm": {}, "update_ratio": {}, "non_finite": 3}'])
def test_a_line_that_is_no_measurement_is_named(tmp_path, line):
    path = tmp_path / "modules.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match="line 1 is not a measurement"):
        read_modules(path)
