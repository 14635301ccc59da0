"""The corpus' section: totals, and every clip that was left out with its reason."""

import json
import shutil
from pathlib import Path

import pytest

from tests.diagnostics.html_page import ReadPage
from tts.data.store import FeatureStore
from tts.diagnostics.page import Page, render
from tts.errors import DataError
from tts.evaluation.corpus_section import LISTED, corpus_section


def shown(store: FeatureStore) -> ReadPage:
    page = ReadPage(render(Page("t", "s", [corpus_section(store)])))
    page.check()
    return page


def with_quality(features: Path, folder: Path, text: str) -> FeatureStore:
    """The store, but with another quality.json."""
    shutil.copytree(features, folder)
    summary = json.loads((folder / "features.json").read_text())
    summary["files"]["quality.json"] = len(text.encode())
    (folder / "features.json").write_text(json.dumps(summary))
    (folder / "quality.json").write_text(text)
    return FeatureStore.open(folder)


def test_a_clean_corpus(features: Path):
    store = FeatureStore.open(features)
    text = shown(store).sections["corpus"]
    assert f"of {len(store.ids)} in the corpus" in text
    assert "Quality control left no clip out." in text
    assert "Median" in text


def test_who_speaks_is_listed(features: Path, voices_features: Path):
    store = FeatureStore.open(voices_features)
    page = shown(store)
    rows = {row[0]: row[1:] for row in page.tables["corpus"]}
    assert {name: row[:2] for name, row in rows.items()} == {
        name: [str((store.speaker_numbers == number).sum()), str((store.speaker_numbers[store.held_out] == number).sum())]
        for number, name in enumerate(("mila", "viktor"))
    }
    assert shown(FeatureStore.open(features)).tables["corpus"] == []


def test_rejected_clips_are_listed_with_their_reasons(features: Path, tmp_path: Path):
    rejected = [{"id": f"clip-{place}", "reason": "too_long", "detail": f"{place}.5 s <is> above"} for place in range(LISTED + 5)]
    counts = {"too_long": len(rejected), "resampled": 3, "mixed_down": 0, "dropped_characters": 7, "trimmed": 0}
    store = with_quality(features, tmp_path / "store", json.dumps({"accepted": 20, "rejected": rejected, "counts": counts}))
    page = shown(store)
    assert page.tables["corpus"][1] == ["clip-1", "too long", "1.5 s <is> above"]
    assert len(page.tables["corpus"]) == LISTED
    assert f"the first {LISTED} of {LISTED + 5}" in page.sections["corpus"]
    assert "3 clips were resampled" in page.sections["corpus"]
    assert "7 characters that the symbol table does not have were dropped" in page.sections["corpus"]
    assert "mixed down" not in page.sections["corpus"]


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"accepted": 1, "rejected": [{"id": "a"}], "counts": {}}', '{"accepted": "1", "rejected": [], "counts": {}}']
)
def test_damage_is_named(features: Path, tmp_path: Path, text: str):
    with pytest.raises(DataError, match=r"quality\.json is damaged"):
        corpus_section(with_quality(features, tmp_path / "store", text))
