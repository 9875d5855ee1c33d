"""The card says what the run's files say, whose numbers they are, and what it does not know."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from brainlit.results.citations import METHOD
from brainlit.results.model_card import CardFacts, base_licence, base_model, load_snippet, model_card
from brainlit.results.run_directory import RunDirectory, read_json
from brainlit.results.summary import build_summary

ROOT = Path(__file__).parents[2]
BACKBONE: dict[str, Any] = {
    "family": "wav2vec",
    "weights": "facebook/wav2vec2-base",
    "origin": {"kind": "pretrained", "commit": "0b5b8e8"},
    "n_layers": 12,
    "frame_rate_hz": 50.0,
    "sample_rate_hz": 16_000,
    "architecture": {"model_type": "wav2vec2"},
    "dropout": 0.0,
}
DATA: dict[str, Any] = {
    "store": "lebel2023",
    "subjects": ["UTS03"],
    "roles": {"tune": ["alternateithicatom[0:343]"], "score": ["wheretheressmoke"]},
    "hours": {"tune": 0.19, "score": 0.16},
    "n_train_windows": 43,
    "n_train_rows": 343,
    "window_s": 24.0,
    "n_targets": {"UTS03": 31234},
    "min_ceiling": 0.4,
    "ceiling_method": "signal_power",
}


@pytest.fixture
def facts(run: RunDirectory) -> CardFacts:
    """Of a finished run on published weights."""
    told = {
        "regime": "brain",
        "regime_words": "brain: tuned to predict the voxels' responses",
        "data": "lebel2023, TR 2 s",
        "data_facts": {"licence": "CC0", "citation": "LeBel et al. 2023", "clock": "first volume at 10 s"},
        "data_module": DATA,
        "training": "4 epochs",
    }
    return CardFacts(
        checkpoint={"name": "last.ckpt", "step": 40, "epoch": 4, "sha256": "0" * 64, "data": {}},
        backbone=BACKBONE,
        settings={"layer": 9, "head_lr": 1e-4, "backbone": {}, "lora": {"rank": 8, "alpha": None}},
        layer=9,
        run_id="fake/one",
        state="finished",
        run=told,
        provenance=read_json(run.path / "provenance.json"),
        summary=build_summary(run),
    )


def header(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---\n")[1]))


def test_the_header_is_what_the_hub_understands(facts: CardFacts) -> None:
    said = header(model_card(facts))
    assert said["library_name"] == "transformers"
    assert said["base_model"] == "facebook/wav2vec2-base"
    assert said["license"] == "apache-2.0"
    assert said["datasets"] == ["lebel2023"]
    assert {"brain-tuning", "wav2vec", "regime:brain"} <= set(said["tags"])


@pytest.mark.parametrize(
    "words",
    [
        "facebook/wav2vec2-base, revision 0b5b8e8",
        "| subjects | UTS03 |",
        "| stories that tune | alternateithicatom[0:343]: 0.19 h |",
        "43 of 24 s per epoch, 343 TRs",
        "noise ceiling above 0.4 (signal power), on the repeats of the stories that choose",
        "| clock | first volume at 10 s |",
        "| head lr | 0.0001 |",
        "| lora rank | 8 |",
        "| data | CC0 |",
        "The data: LeBel et al. 2023",
        "The layers above it (10 to 12) were not trained through it.",
        "last.ckpt, after 40 steps (epoch 4)",
    ],
)
def test_the_card_says(facts: CardFacts, words: str) -> None:
    assert words in model_card(facts)


def test_scores_come_with_their_intervals_and_numbers_of_voxels(facts: CardFacts) -> None:
    card = model_card(facts)
    (row,) = [one for one in facts.summary["scores"] if (one["subject"], one["region"]) == ("all", "semantic")
              and one["metric"] == "r_backbone" and one["layer"] == 2]  # fmt: skip
    change = row["difference"]
    interval = f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"
    assert re.search(rf"\| semantic \| {row['n_voxels']} \| 2 \| .* \| {re.escape(interval)} \|", card)
    assert all(sentence in card for sentence in facts.summary["headline"] + facts.summary["limits"])


def test_of_a_group_it_says_how_many_people_are_in_it(facts: CardFacts) -> None:
    members = {"group": {"one": 8, "two": 10, "three": 9}, "pair": {"one": 2}}
    told = {**facts.run, "data_module": {**DATA, "subjects": ["group", "pair", "solo"], "members": members}}
    card = model_card(replace(facts, run=told))
    assert "| subjects | group (mean of 8 to 10 people), pair (mean of 2 people), solo |" in card


def test_scores_of_other_weights_are_said_to_be_so(facts: CardFacts) -> None:
    assert "'After' is of the weights in this folder (step 40)" in model_card(facts)
    earlier = replace(facts, checkpoint={**facts.checkpoint, "step": 30})
    assert "'After' is of other weights of the same run" in model_card(earlier)


def test_simulations_controls_and_unfinished_runs_are_said_to_be_so(facts: CardFacts) -> None:
    plain = model_card(facts)
    told = {**facts.run, "simulated": True, "control": True, "regime": "permuted"}
    card = model_card(replace(facts, run=told, state="killed"))
    for words in ("The listeners are simulated.", "This is a control.", "The run had not finished"):
        assert words in card
        assert words not in plain
    assert "simulated-data" in header(card)["tags"]
    assert "fmri" not in header(card)["tags"]
    assert "fmri" in header(plain)["tags"]
    title, first, *_ = card.partition("---\n\n")[2].split("\n\n")
    assert title.endswith(" after simulated brain-tuning")
    assert first.startswith("**The listeners are simulated.** No brain was measured")
    assert "with responses of simulated listeners to stories" in card
    assert "with the fMRI of people who listened to stories" in plain


def test_a_checkpoint_alone_says_what_it_knows(facts: CardFacts) -> None:
    about = {**facts.checkpoint, "data": {"regime": "permuted"}}
    card = model_card(CardFacts(about, {**BACKBONE, "weights": "/home/me/secret/model"}, {"layer": -1}, 12))
    assert "regime:permuted" in header(card)["tags"]
    assert "exported from a checkpoint without its run" in card
    assert "No probe of this run is at hand" in card
    assert "secret" not in card, "where a folder lies on somebody's disk is no one's business"
    assert "license" in header(card)
    assert header(card)["license"] == "unknown"


@pytest.mark.parametrize(
    ("weights", "kind", "hub", "licence"),
    [
        ("openai/whisper-small", "pretrained", "openai/whisper-small", "apache-2.0"),
        ("someone/their-model", "pretrained", "someone/their-model", "unknown"),
        ("random:facebook/wav2vec2-base", "random", None, "unknown"),
        ("tiny", "tiny", None, "unknown"),
        ("/models/wav2vec2", "pretrained", None, "unknown"),
    ],
)
def test_base_weights_are_named_where_they_are_published(
    weights: str, kind: str, hub: str | None, licence: str
) -> None:
    backbone = {**BACKBONE, "weights": weights, "origin": {"kind": kind}}
    assert (base_model(backbone), base_licence(backbone)) == (hub, licence)


def test_models_with_a_decoder_are_loaded_by_their_encoder(facts: CardFacts) -> None:
    whisper = replace(facts, backbone={**BACKBONE, "architecture": {"model_type": "whisper"}})
    assert "model.get_encoder()(inputs.input_features" in load_snippet(whisper)
    short = replace(facts, backbone={**BACKBONE, "positions": "truncated"})
    assert "in tuning it heard the window alone" in model_card(short)
    assert "in tuning it heard the window alone" not in model_card(whisper)


def test_the_citation_is_that_of_the_citation_file() -> None:
    (paper,) = [entry for entry in yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
                if entry["type"] == "conference-paper"]  # fmt: skip
    for words in (paper["title"], paper["url"], str(paper["year"]), *(who["family-names"] for who in paper["authors"])):
        assert words in METHOD.bibtex()
