"""study.html in a browser: in an iframe that allows no more than scripts, every picture is drawn and no text runs out of its place."""

import json
import re
from html import unescape

import pytest
from optuna.trial import TrialState

from tests.browser import HARNESS, PROBE, run
from tests.tuning.told import FOUR, tell
from tts.tuning.report.page import write_page
from tts.tuning.report.records import record
from tts.tuning.report.results import write_tables


@pytest.mark.parametrize("several", [False, True])
def test_no_text_runs_out_of_its_place(make_study, browser, tmp_path, several):
    two = [{"metric": "mel_loss", "objective": "spectrogram"}, {"metric": "gate_loss", "objective": "gate"}]
    knobs = ["optimiser.learning_rate", "optimiser.warmup_steps", "model.prenet_dropout", "guided_attention.weight", "losses.gate_weight"]
    study = make_study(trials=20, knobs=knobs, **({"objective": two, "pruner": "none"} if several else {}))
    tell(study, (*FOUR, *FOUR, TrialState.RUNNING), attributes={"interruptions": ["its worker died"]}, workers=3)
    folder = tmp_path / "page"
    folder.mkdir()
    results = record(study)
    write_tables(folder, results)
    write_page(folder, results)
    (folder / "probed.html").write_text((folder / "study.html").read_text().replace("</body>", f"{PROBE}</body>"))
    (folder / "harness.html").write_text(HARNESS)

    document = run(browser, tmp_path / "profile", "--window-size=1200,900", "--dump-dom", (folder / "harness.html").as_uri())

    seen = json.loads(unescape(re.search(r'<pre id="seen">(.*?)</pre>', document, flags=re.DOTALL)[1]))
    assert seen["drawings"] == (2 + 1 + 2 * len(knobs) + 1 if several else 3 + 1 + len(knobs) + 1)
    assert seen["wide"] == []
    assert seen["outside"] == []
    assert seen["small"] == 0
    assert seen["width"] <= seen["room"] == 1200
