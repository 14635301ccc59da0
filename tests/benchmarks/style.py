"""Whether style tokens find out who speaks: two of espeak's voices, no speaker embedding, a short training.

`python -m tests.benchmarks.style` prints, as JSON, the share of held-out clips whose style lies nearer to the mean style of their own speaker's
training clips than to the other's, and what lies between the speakers of the styles' variance.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from tts.config.load import override
from tts.config.presets import demo
from tts.data.demo_corpus import write_demo_corpus
from tts.data.prepare import prepare
from tts.data.store import FeatureStore
from tts.progress import Silent
from tts.training.checkpoint import load_model
from tts.training.loop import train
from tts.training.preemption import StopFlag
from tts.training.ranks import ALONE
from tts.training.updates import Updates

CLIPS, STEPS = 120, 150
KNOBS = {"model.style_tokens": 4, "model.style_heads": 2, "model.style_width": 64, "data.held_out_share": 0.2, "data.held_out_max": 24}


def measure(steps: int = STEPS) -> dict[str, float]:
    """The figures, after training in a folder that is gone afterwards."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_demo_corpus(folder / "corpus", language="en", utterances=CLIPS, seed=0, speakers=2, progress=Silent())
        config = override(demo(), {**KNOBS, "training.steps": steps, "training.validation_interval": steps, "training.checkpoint_interval": steps})
        prepare(folder / "corpus", folder / "features", config, progress=Silent())
        store = FeatureStore.open(folder / "features")
        untrained = separation(Updates(store, config, ALONE).model.eval(), store)
        for _ in train(store, config, folder / "run", progress=Silent(), stop=StopFlag()):
            pass
        trained = separation(load_model(folder / "run").model, store)
        return {**{f"style_{key}_untrained": value for key, value in untrained.items()}, **{f"style_{key}": value for key, value in trained.items()}}


def separation(model, store):
    """`own`: share of held-out clips nearer to their own speaker. `between`: share of the held-out styles' variance between the speakers."""
    styles = {side: _styles(model, store, places) for side, places in (("train", store.train), ("held_out", store.held_out))}
    who = {"train": store.speaker_numbers[store.train], "held_out": store.speaker_numbers[store.held_out]}
    centres = np.stack([styles["train"][who["train"] == speaker].mean(0) for speaker in (0, 1)])
    distances = np.linalg.norm(styles["held_out"][:, None] - centres, axis=2)
    own = float((distances.argmin(1) == who["held_out"]).mean())
    spread = np.square(styles["held_out"] - styles["held_out"].mean(0)).sum()
    within = sum(np.square(part - part.mean(0)).sum() for part in (styles["held_out"][who["held_out"] == speaker] for speaker in (0, 1)))
    return {"own": round(own, 3), "between": round(float(1 - within / spread), 3)}


def _styles(model, store, places):
    """(U, H K) weights of each clip's style."""
    rows = []
    for place in places:
        mel_TM = torch.from_numpy(np.array(store.mel(int(place))))
        rows.append(model.style_of(mel_TM[None], torch.tensor([len(mel_TM)]))[0].flatten().numpy())
    return np.stack(rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
