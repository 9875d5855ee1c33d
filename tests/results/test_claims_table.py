from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from brainlit.results.claims import CLAIMS, TOPICS
from brainlit.results.claims_table import HEADS, claims_json, claims_markdown, replace_between
from brainlit.results.effects import Evidence, SeedEvidence
from brainlit.results.findings import findings


def test_every_claim_has_a_row_with_its_numbers(evidence: Evidence) -> None:
    found = findings(evidence)
    lines = claims_markdown(evidence, found).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(CLAIMS) + len(TOPICS)
    assert {line.count("|") for line in table} == {len(HEADS) + 1}
    (row,) = [line for line in table if line.startswith("| alignment rises in semantic voxels (")]
    assert "| +0.162 | +0.137 to +0.187 | 3 | 11: +0.172 [+0.172, +0.172]; 12: +0.152 [" in row
    assert row.endswith("| **supported** |")
    verdicts = {one.text: one.verdict for one in found}
    assert verdicts["alignment rises more than with permuted responses"] == "supported"
    assert verdicts["word category is read better, words that the probe never saw"] == "not supported"
    assert verdicts["alignment with auditory voxels stays as it was"] == "not supported"
    assert verdicts["phones are read no worse"] == "supported"


def test_what_did_not_help_is_said_in_a_sentence(evidence: Evidence) -> None:
    text = claims_markdown(evidence, findings(evidence))
    assert "- Not so: word category is read better, words that the probe never saw (+0.000, 95 % interval" in text
    assert "3 seeds: p 0.25" in text
    assert "Student's t, n - 1 degrees of freedom" in text
    assert "Not there:" not in text


def test_models_stand_side_by_side(evidence: Evidence) -> None:
    other = tuple(SeedEvidence("hubert", seed.seed, seed.states, seed.words) for seed in evidence.seeds[:1])
    both = replace(evidence, seeds=(*evidence.seeds, *other), missing=("hubert, brain: no run of seed 12",))
    text = claims_markdown(both, findings(both))
    assert text.startswith("| claim | hubert | wav2vec (tiny) |\n|---|---|---|\n")
    assert "| alignment rises in semantic voxels | +0.172 cannot tell with this n | +0.162 supported |" in text
    assert "**hubert**, 1 seed (11); semantic voxels" in text
    assert "1 seed: p 1; 3 seeds: p 0.25" in text
    assert text.endswith("Not there:\n\n- hubert, brain: no run of seed 12\n")


def test_json_has_every_number_of_every_seed(evidence: Evidence) -> None:
    plain = json.loads(json.dumps(claims_json(evidence, findings(evidence)), allow_nan=False))
    first = plain["claims"][0]
    assert (first["claim"], first["verdict"], first["n_seeds"]) == (
        "alignment rises in semantic voxels",
        "supported",
        3,
    )
    assert first["seeds"]["12"]["value"] == pytest.approx(0.152)
    assert first["sign_flip_p"] == plain["smallest_p"]["wav2vec (tiny)"] == 0.25
    assert plain["claims"][1]["seeds"]["12"]["permutations"] == pytest.approx([0.16, 0.158], abs=1e-6)
    assert first["smallest_effect_reason"]
    assert len(plain["claims"]) == len(CLAIMS)
    assert plain["region"] == "semantic"


def test_text_between_markers_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- claims:begin -->\nold\nlines\n<!-- claims:end -->\n\nEnd.\n")
    for text in ("new table\n", "newer\n\nlines"):
        assert replace_between(page, "claims", text) == page
        assert page.read_text() == (f"# Title\n\n<!-- claims:begin -->\n{text.strip()}\n<!-- claims:end -->\n\nEnd.\n")


@pytest.mark.parametrize(
    "content",
    [
        "no markers",
        "<!-- claims:begin -->",
        "<!-- claims:end -->\n<!-- claims:begin -->",
        "<!-- claims:begin -->\n<!-- claims:end -->\n<!-- claims:begin -->\n<!-- claims:end -->",
        "<!-- other:begin -->\n<!-- other:end -->",
    ],
)
def test_a_page_without_its_markers_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(content)
    with pytest.raises(ValueError, match=r"needs the lines <!-- claims:begin --> and <!-- claims:end --> once each"):
        replace_between(page, "claims", "text")
    assert page.read_text() == content


def test_a_page_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_between(tmp_path / "none.md", "claims", "text")
