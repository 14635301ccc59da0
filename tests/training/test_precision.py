import pytest
import torch

from tts.config.load import override
from tts.errors import UsageError
from tts.progress import Silent
from tts.training.loop import train
from tts.training.metrics_log import read_metrics
from tts.training.precision import bf16_on_cpu, bf16_on_cuda, choose_device, choose_precision
from tts.training.preemption import StopFlag
from tts.training.step import train_step

CPU = torch.device("cpu")
NATIVE = bf16_on_cpu(torch.cpu.get_capabilities())


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [
        ({"avx2": True, "avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True, "cpu_name": "x"}, False),
        ({}, False),
    ],
)
def test_bf16_is_native_where_the_processor_lists_it(capabilities, native):
    assert bf16_on_cpu(capabilities) is native


def test_bf16_is_refused_where_it_would_be_emulated(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(UsageError, match=r"no native bf16.*--training\.precision fp32"):
        choose_precision("bf16", CPU)


def test_fp16_is_refused_on_a_cpu():
    with pytest.raises(UsageError, match="needs CUDA"):
        choose_precision("fp16", CPU)


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="finds no CUDA device"):
        choose_device("cuda")
    assert choose_device("auto") == choose_device("cpu") == CPU


def _first_step(new_run, config, device=CPU):
    learner, batch = new_run(config, device)
    return learner, train_step(learner, batch.to(device), config, 1)


def _close_to_fp32(new_run, tiny, precision, device):
    """Number formats draw different dropout masks, so without dropout."""
    plain = override(tiny, {f"model.{name}_dropout": 0.0 for name in ("encoder", "attention", "prenet", "decoder", "postnet")})
    reference, expected = _first_step(new_run, plain, device)
    learner, result = _first_step(new_run, override(plain, {"training.precision": precision}), device)
    assert float(result.loss) == pytest.approx(float(expected.loss), rel=0.01)
    assert float(result.gradient_norm) == pytest.approx(float(expected.gradient_norm), rel=0.05)
    assert all(parameter.dtype == torch.float32 for parameter in learner.model.parameters())
    ours, theirs = (torch.cat([p.grad.flatten() for p in one.model.parameters()]) for one in (learner, reference))
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99
    # Clipped after unscaling: both have the configured norm.
    assert ours.norm().item() == pytest.approx(plain.optimiser.clip_norm, rel=1e-3)


def test_bf16_steps_like_fp32_where_it_is_native_and_is_refused_elsewhere(new_run, tiny):
    if not NATIVE:
        with pytest.raises(UsageError, match="bf16"):
            choose_precision("bf16", CPU)
        return
    _close_to_fp32(new_run, tiny, "bf16", CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_steps_like_fp32_on_cuda(new_run, tiny, precision):
    device = torch.device("cuda")
    if precision == "bf16" and not bf16_on_cuda():
        with pytest.raises(UsageError, match="bf16"):
            choose_precision(precision, device)
        return
    _close_to_fp32(new_run, tiny, precision, device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_runs_with_cuda_graphs_train_as_those_without_and_resume(store, tiny, tmp_path, precision):
    """Both decoders, a factor that falls, the recogniser; a run that was stopped and one that was not."""
    if precision == "bf16" and not bf16_on_cuda():
        pytest.skip("no native bf16")
    knobs = {"model.coarse_reduction_factor": 6, "model.initial_reduction_factor": 3, "training.reduction_interval": 8, "model.recogniser": 8}
    still = {f"model.{name}_dropout": 0.0 for name in ("encoder", "attention", "prenet", "decoder", "postnet", "recogniser")}
    config = override(tiny, knobs | still | {"training.device": "cuda", "training.precision": precision, "training.steps": 24})
    runs = {"graphs": config, "stopped": override(config, {"training.steps": 12}), "plain": override(config, {"training.cuda_graphs": False})}
    for name, changed in runs.items():
        list(train(store, changed, tmp_path / name, progress=Silent(), stop=StopFlag()))
    list(train(store, config, tmp_path / "stopped", progress=Silent(), stop=StopFlag()))
    losses = {}
    for name in runs:
        losses[name] = [line["loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl") if line["kind"] == "train"]
    assert losses["graphs"] == pytest.approx(losses["plain"], rel=0.01 if precision == "fp32" else 0.1)
    assert losses["stopped"] == pytest.approx(losses["graphs"], rel=0.01 if precision == "fp32" else 0.1)
