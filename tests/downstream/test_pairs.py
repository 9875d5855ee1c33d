from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from brainlit.demo.text import CATEGORIES, category_of
from brainlit.downstream.pairs import DEMO_MEANING, demo_category_mates, english_pairs, find_pairs, phone_distances
from brainlit.downstream.word_lists import WordListMissingError, cmudict_phones, stems, wordnet_lemmas, wordnet_synonyms

PHONES = {
    "bank": ("B", "AE", "NG", "K"),
    "tank": ("T", "AE", "NG", "K"),
    "banks": ("B", "AE", "NG", "K", "S"),
    "shore": ("SH", "AO", "R"),
    "store": ("S", "T", "AO", "R"),
    "shop": ("SH", "AA", "P"),
    "sop": ("S", "AA", "P"),
    "loud": (),
}


def slow_edits(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    if not one or not other:
        return len(one) + len(other)
    same = one[0] == other[0]
    return min(
        slow_edits(one[1:], other) + 1, slow_edits(one, other[1:]) + 1, slow_edits(one[1:], other[1:]) + (not same)
    )


def test_distances_are_edits_over_the_longer_length() -> None:
    rng = np.random.default_rng(0)
    strings = [tuple(rng.choice(list("abcd"), size=rng.integers(1, 6))) for _ in range(25)]
    found = phone_distances(strings)
    for a, b in combinations(range(25), 2):
        assert found[a, b] == found[b, a] == slow_edits(strings[a], strings[b]) / max(len(strings[a]), len(strings[b]))
    assert np.array_equal(np.diag(found), np.zeros(25))


def test_each_pair_has_one_kind_and_the_rest_is_counted() -> None:
    related = [("shop", "store"), ("shore", "bank"), ("sop", "shop"), ("banks", "bank"), ("nowhere", "shop")]
    pairs = find_pairs(PHONES, related, "planted")
    assert pairs.of_kind("semantic") == [("bank", "shore"), ("shop", "store")]
    assert pairs.of_kind("near_homophone") == [("bank", "tank"), ("banks", "tank")]
    assert pairs.left_out == {"words without phones": 1, "one stem or lemma": 1, "related and near-homophones": 1}
    random = set(pairs.of_kind("random"))
    assert ("shop", "tank") in random
    assert not {word for pair in random for word in pair} & {"sop", "loud"}
    assert not random & {("bank", "banks"), *pairs.of_kind("semantic"), *pairs.of_kind("near_homophone")}
    assert pairs.counts() == {"semantic": 2, "near_homophone": 2, "random": len(random)}
    assert pairs.mean_phone_distance()["near_homophone"] == pytest.approx((0.25 + 0.4) / 2)
    looser = find_pairs(PHONES, related, "planted", most_phone_distance=0.5)
    assert ("shore", "store") in looser.of_kind("near_homophone")


def test_lemmas_join_what_endings_do_not() -> None:
    phones = {"sang": ("S", "AE", "NG"), "sing": ("S", "IH", "NG"), "song": ("S", "AO", "NG"), "thing": ("TH", "IH")}
    assert ("sang", "sing") in find_pairs(phones, [], "").of_kind("near_homophone")
    pairs = find_pairs(phones, [], "", lemmas={"sang": {"sing"}})
    assert ("sang", "sing") not in pairs.of_kind("near_homophone")
    assert ("sang", "song") in pairs.of_kind("near_homophone")


def test_many_pairs_are_drawn_by_the_seed() -> None:
    phones = {f"{a}{b}": (a, b, a, b) for a in "abcdef" for b in "ghijkl"}
    draws = [find_pairs(phones, [], "", max_per_kind=20, most_phone_distance=0.5, seed=seed) for seed in (0, 0, 1)]
    assert draws[0].counts()["random"] == draws[0].counts()["near_homophone"] == 20
    same, other = (draws[0].of_kind("random") == draw.of_kind("random") for draw in draws[1:])
    assert same
    assert not other


def test_the_demo_has_category_mates_and_says_that_they_are_no_synonyms() -> None:
    pairs = demo_category_mates(category_of())
    assert len(pairs) == len(CATEGORIES) * (28 + 1 + 1)
    assert all(category_of()[a] == category_of()[b] for a, b in pairs)
    assert "not synonyms" in DEMO_MEANING
    assert not [pair for pair in pairs if not stems(pair[0]).isdisjoint(stems(pair[1]))]


def test_the_published_dictionary_is_read(tmp_path: Path) -> None:
    file = tmp_path / "cmudict.dict"
    file.write_text(
        ";;; comment\nTOMATO  T AH0 M EY1 T OW2\nTOMATO(1)  T AH0 M AA1 T OW2\nnaïve N AY2 # odd\n", "latin-1"
    )
    assert cmudict_phones(["tomato", "Naïve", "xyzzy"], file) == {
        "tomato": ("T", "AH", "M", "EY", "T", "OW"),
        "Naïve": ("N", "AY"),
    }
    with pytest.raises(FileNotFoundError):
        cmudict_phones(["tomato"], tmp_path / "absent")


def fake_nltk(monkeypatch: pytest.MonkeyPatch, **corpora: object) -> None:
    module = ModuleType("nltk.corpus")
    module.__dict__.update(corpora)
    monkeypatch.setitem(sys.modules, "nltk", ModuleType("nltk"))
    monkeypatch.setitem(sys.modules, "nltk.corpus", module)


def test_wordnet_and_its_dictionary_are_asked_through_nltk(monkeypatch: pytest.MonkeyPatch) -> None:
    synsets = {"big": ["large.a.01", "adult.a.01"], "large": ["large.a.01"], "small": ["small.a.01"], "bigs": []}
    wordnet = SimpleNamespace(
        ensure_loaded=lambda: None,
        synsets=lambda word: [SimpleNamespace(name=lambda name=name: name) for name in synsets[word]],
        morphy=lambda word, pos: {"bigs": "big"}.get(word) if pos == "n" else None,
    )
    cmudict = SimpleNamespace(ensure_loaded=lambda: None, dict=lambda: {"big": [["B", "IH1", "G"]]})
    fake_nltk(monkeypatch, wordnet=wordnet, cmudict=cmudict)
    assert wordnet_synonyms(synsets) == {("big", "large")}
    assert wordnet_lemmas(["bigs", "big"]) == {"bigs": frozenset({"big"}), "big": frozenset()}
    assert cmudict_phones(["Big", "large"]) == {"Big": ("B", "IH", "G")}


def test_english_pairs_join_the_lists_and_prefer_phones_that_were_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    wordnet = SimpleNamespace(
        ensure_loaded=lambda: None,
        synsets=lambda word: [SimpleNamespace(name=lambda: "store.n.01")] if word in ("shop", "store") else [],
        morphy=lambda word, pos: "bank" if word == "tank" else None,
    )
    listed = {word: [list(spoken)] for word, spoken in PHONES.items() if spoken}
    cmudict = SimpleNamespace(ensure_loaded=lambda: None, dict=lambda: listed)
    fake_nltk(monkeypatch, wordnet=wordnet, cmudict=cmudict)
    pairs = english_pairs(list(PHONES))
    assert "WordNet" in pairs.meaning
    assert pairs.of_kind("semantic") == [("shop", "store")]
    assert pairs.of_kind("near_homophone") == [("shop", "sop")]
    assert pairs.left_out["one stem or lemma"] == 3  # bank, banks and tank, whose lemma is planted
    spoken = english_pairs(list(PHONES), {"shop": ("SH",), "store": ("SH",), "shore": ("SH",)})
    assert spoken.of_kind("near_homophone") == [("shop", "shore"), ("shore", "store")]
    assert spoken.left_out["words without phones"] == 5


def test_missing_lists_are_named_with_their_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise LookupError("no such resource")

    fake_nltk(monkeypatch, wordnet=SimpleNamespace(ensure_loaded=missing))
    with pytest.raises(WordListMissingError, match=r"'wordnet' is not; cure: .*nltk\.downloader wordnet"):
        wordnet_synonyms(["big"])
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    with pytest.raises(WordListMissingError, match="pip install nltk"):
        wordnet_lemmas(["big"])


def test_words_without_phones_make_no_pairs() -> None:
    with pytest.raises(ValueError, match="0 of 1 words have phones"):
        find_pairs({"loud": ()}, [], "")
