import json
import math

import torch

from tts.training.anomaly import Anomaly, write_anomaly
from tts.training.step import train_step


def test_the_record_is_strict_json_and_names_what_happened(new_run, tiny, tmp_path):
    _, batch = new_run(tiny)
    anomaly = Anomaly("loss", "gate", "nan", batch.ids)
    path = write_anomaly(tmp_path / "anomalies", 12, anomaly, batch, {"loss": math.nan, "gradient_norm": -math.inf, "learning_rate": 0.5})
    assert path == tmp_path / "anomalies" / "step-00000012.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record == {
        "step": 12,
        "kind": "loss",
        "name": "gate",
        "value": "nan",
        "utterances": list(batch.ids),
        "batch": list(batch.ids),
        "figures": {"loss": "nan", "gradient_norm": "-inf", "learning_rate": 0.5},
        "action": "update skipped",
    }


def test_a_long_batch_is_shortened_in_messages():
    assert str(Anomaly("loss", "gate", "nan", ("a", "b"))) == "loss gate is nan (a, b)"
    assert str(Anomaly("loss", "gate", "nan", ("a", "b", "c", "d", "e"))) == "loss gate is nan (a, b, c and 2 more)"


def test_gradients_are_searched_in_the_order_of_the_backward_pass(new_run, tiny):
    """What is not finite in the postnet's gradient spreads to all modules before it, and only the postnet is to be named."""
    learner, batch = new_run(tiny)

    def spoil(_module, _inputs, output):
        output.register_hook(lambda gradient: gradient * torch.nan)

    learner.model.postnet.convolutions[0].norm.register_forward_hook(spoil)
    result = train_step(learner, batch, tiny, 1)
    assert result.anomaly is not None
    assert result.anomaly.kind == "gradient"
    assert result.anomaly.name.startswith("postnet.convolutions.0.norm")
