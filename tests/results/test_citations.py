"""What is cited is what CITATION.cff, the cards in data/ and the speech families themselves say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from brainlit.backbones.families import FAMILIES as SPEECH_FAMILIES
from brainlit.results.citations import (
    DATA_SETS,
    FAMILIES,
    FAMILY_NAMES,
    METHOD,
    RIDGE,
    SOFTWARE,
    Citation,
    bibliography,
    cited,
)

ROOT = Path(__file__).parents[2]
FILE: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
WORKS = list(dict.fromkeys([METHOD, RIDGE, *FAMILIES.values(), *(one for all_ in DATA_SETS.values() for one in all_)]))


def test_works_of_the_citation_file_are_as_it_has_them() -> None:
    by_title = {work.fields["title"].lower(): work for work in WORKS}
    shared = [entry for entry in FILE["references"] if entry["title"].lower() in by_title]
    assert {entry["title"][:12] for entry in shared} == {
        "Improving Se",
        "Feature-spac",
        "A natural la",
        "Abstract lin",
    }
    for entry in shared:
        fields = by_title[entry["title"].lower()].fields
        people = " and ".join(f"{who['family-names']}, {who['given-names']}" for who in entry["authors"])
        assert fields["author"] == people
        assert fields["year"] == str(entry["year"])
        for key in ("volume", "doi", "url"):
            if key in entry:
                assert fields[key] == str(entry[key])
    assert SOFTWARE.fields["title"] == FILE["title"]
    assert SOFTWARE.fields["author"] == f"{{{FILE['authors'][0]['name']}}}"


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_sets_are_cited_as_their_cards_say(name: str) -> None:
    card = " ".join((ROOT / "data" / f"{name}.md").read_text(encoding="utf-8").split())
    for work in DATA_SETS[name]:
        facts = work.fields
        assert re.search(rf"{facts['author'].partition(',')[0]}[^|]*\({facts['year']}\)", card)
        for key in ("volume", "doi"):
            assert facts.get(key, "") in card
        assert facts.get("pages", "").replace("--", "-") in card


def test_every_speech_family_is_cited_by_the_paper_that_its_module_names() -> None:
    assert FAMILIES.keys() == FAMILY_NAMES.keys() == SPEECH_FAMILIES.keys()
    for name, family in SPEECH_FAMILIES.items():
        module = (ROOT / "src/brainlit/backbones" / f"{family.path.partition(':')[0]}.py").read_text(encoding="utf-8")
        first_author = FAMILIES[name].short.partition(" ")[0]
        said = rf"\({first_author}[\w .]* {FAMILIES[name].fields['year']}, arXiv {FAMILIES[name].fields['eprint']}"
        assert re.search(said, module), name


@pytest.mark.parametrize("work", [*WORKS, SOFTWARE], ids=lambda work: work.key)
def test_entries_are_bibtex(work: Citation) -> None:
    text = work.bibtex(note="more")
    assert text.startswith(f"@{work.kind}{{{work.key},\n")
    assert text.endswith(",\n  note = {more}\n}")
    assert text.count("{") == text.count("}")
    assert {"title", "author"} <= work.fields.keys()
    assert not re.search(r"(?<!\\)[&%#$]", text)
    assert work is SOFTWARE or work.fields["year"] == work.short[-4:]
    assert work.address is None or re.match(r"https://(doi\.org|arxiv\.org/abs)/[\w./-]+$", work.address)


def test_keys_are_one_of_each() -> None:
    assert len({work.key for work in WORKS}) == len(WORKS)


def test_what_is_not_known_adds_nothing() -> None:
    assert cited(None, ["mine"]) == cited("mine", []) == [METHOD, RIDGE]
    assert cited("hubert", ["lebel2023", "lebel2023"]) == [METHOD, RIDGE, *DATA_SETS["lebel2023"], FAMILIES["hubert"]]
    assert "note" not in bibliography([METHOD])
    assert bibliography([METHOD], "0.1.0").endswith("  note = {Version 0.1.0}\n}")
