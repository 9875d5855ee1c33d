"""The methods say what the run's files say, in every number, and nothing that they do not."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from brainlit.guard import UnreadableFileError
from brainlit.results.methods import (
    LOSSES,
    REGIMES,
    SCHEDULES,
    TUNED,
    bibtex_of,
    done_said,
    listeners_said,
    methods_markdown,
    methods_paragraphs,
    read_settings,
    works_of,
)
from brainlit.tuning.heads import HEADS
from brainlit.tuning.losses import LOSSES as TARGET_LOSSES

SUMMARY: dict[str, Any] = {
    "run": {
        "regime": "brain",
        "simulated": False,
        "model": "hubert (facebook/hubert-base-ls960), 12 layers of 768, 94.37 M parameters, 85.05 M trained",
        "data": "lebel2023, TR 2 s, 42 min tune",
        "data_facts": {"responses passed": "z-scored per story"},
        "training": "7 epochs, batches of 4 windows, backbone_lr 0.00013, head_lr 0.0031, precision 16-mixed",
        "data_module": {
            "store": "lebel2023",
            "roles": {
                "tune": ["souls[0:343]", "life[0:200]", "life[220:413]"],
                "fit": [f"story{k}[0:91]" for k in range(11)],
                "choose": ["avatar[0:367]"],
                "score": ["wheretheressmoke"],
            },
            "rows": {"tune": 736, "fit": 1001, "choose": 367, "score": 291},
            "hours": {"tune": 0.4089, "fit": 0.5561, "choose": 0.2039, "score": 0.1617},
            "n_train_windows": 53,
            "window_s": 38.0,
            "held_out_subjects": ["UTS08"],
        },
        "backbone": {
            "family": "hubert",
            "weights": "facebook/hubert-base-ls960",
            "origin": {"kind": "pretrained"},
            "n_layers": 12,
            "hidden_size": 768,
            "n_parameters": 94_371_712,
        },
        "epochs": 7,
        "steps": 371,
        "seed": 23,
    },
    "probe": {
        "subjects": {"UTS03": {"n_used": 31_234}, "UTS05": {"n_used": 29_111}, "UTS08": {"n_used": 30_000}},
        "layer": 9,
        "delays_trs": [1, 2, 3, 4],
        "ridge": "15 alphas from 0.001 to 1e+04, 6 folds over stories, mixtures {1: 1, 2: 5}, solver kernel, seed 17",
        "filter": "features passed what the responses passed: z-scored per story",
        "bands": {"backbone": ["layer"], "low_level": ["spectral"]},
        "n_fit_trs": 946,
        "n_score_trs": 286,
        "bootstrap": {"block_trs": 20, "n_bootstraps": 777, "seed": 29},
    },
    "stages": {"before": {}, "after": {}},
    "scores": [{"metric": "r_backbone"}, {"metric": "low_level_share"}, {"metric": "ceiling"}],
    "formulas": {
        "r_backbone": "mean over voxels of Pearson r",
        "low_level_share": "(R2_B + R2_L - R2_BL) / R2_B; left out where the interval reaches 0",
        "ceiling": "highest r that any model could reach: square root of signal over all; left out where small",
    },
    "held_out": {},
}
SETTINGS: dict[str, Any] = {
    "trainer": {"gradient_clip_val": 0.7, "callbacks": []},
    "model": {
        "layer": -4,
        "lora": {"rank": 0},
        "trainable": {"first_layer": 5, "last_layer": None, "upper_layers": None},
        "pooling": {"over": "tr", "how": "mean"},
        "head": {"kind": "bottleneck", "rank": 96},
        "loss": {"name": "mse", "over_subjects": "mean"},
        "objective": {"targets": 1.0},
        "backbone_lr": None,
        "head_lr": 0.0041,
        "weight_decay": 0.013,
        "warmup_fraction": 0.12,
        "optimizer": "adamw",
        "schedule": "warmup_linear",
    },
    "data": {"batch_size": 6, "window": {"n_trs": 14, "context_s": 10.0}},
}
PROVENANCE: dict[str, Any] = {
    "git": {"revision": "1c1f387a043ce440e8cc4850f078413a437e63c7"},
    "versions": {"python": "3.11.7", "brainlit": "0.1.0", "torch": "2.13.0", "himalaya": "0.4.11"},
}


def text_of(summary: dict[str, Any], settings: dict[str, Any] = SETTINGS, of: dict[str, Any] = PROVENANCE) -> str:
    return "\n".join(methods_paragraphs(summary, settings, of))


def changed(*paths: tuple[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Summary, settings and provenance with some values changed, each named by its keys."""
    parts = {"summary": SUMMARY, "settings": SETTINGS, "provenance": PROVENANCE}
    whole = copy.deepcopy(parts)
    for path, value in paths:
        *above, last = path.split("/")
        at: Any = whole
        for key in above:
            at = at[key]
        if value is None:
            at.pop(last, None)
        else:
            at[last] = value
    return whole["summary"], whole["settings"], whole["provenance"]


NUMBERS = [
    ("summary/run/backbone/n_layers", 24, "24 transformer layers"),
    ("summary/run/backbone/hidden_size", 1024, "1024 units"),
    ("summary/run/backbone/n_parameters", 315_438_720, "315.44 M parameters"),
    ("summary/run/model", "hubert, 85.31 M trained", "85.31 M parameters: the weights"),
    ("summary/run/data", "lebel2023, TR 1.5 s", "TR 1.5 s"),
    ("summary/run/data_module/rows/fit", 1207, "11 stories (1207 TRs, 0.56 h) to fit the encoding models"),
    ("summary/run/data_module/hours/tune", 3.21, "2 stories (souls, life; 736 TRs, 3.21 h) to tune the model"),
    ("summary/run/data_module/n_train_windows", 71, "71 windows per epoch"),
    ("summary/run/data_module/window_s", 41.5, "windows of 41.5 s"),
    ("summary/run/steps", 372, "372 steps in 7 epochs"),
    ("summary/run/epochs", 8, "371 steps in 8 epochs"),
    ("summary/run/seed", 31, "Seed 31."),
    ("summary/run/training", "backbone_lr 0.00077, precision bf16-mixed, 1 threads", "0.00077 (backbone)"),
    ("summary/run/training", "backbone_lr 0.00077, precision bf16-mixed, 1 threads", "precision bf16-mixed"),
    ("summary/probe/layer", 8, "compared on hidden state 8"),
    ("summary/probe/ridge", "7 alphas from 1 to 10, 3 folds", "Ridge: 7 alphas from 1 to 10, 3 folds."),
    ("summary/probe/delays_trs", [2, 5], "means per TR, 2, 5 TRs late"),
    ("summary/probe/n_fit_trs", 901, "fitted on 901 TRs and scored on 286 others"),
    ("summary/probe/bootstrap/n_bootstraps", 555, "555 draws, seed 29"),
    ("summary/probe/subjects/UTS03/n_used", 41_000, "29111 to 41000 voxels each"),
    ("settings/model/layer", -2, "from hidden state 11"),
    ("settings/model/layer", 3, "from hidden state 3"),
    ("settings/model/head/rank", 100, "linear maps through 100 features"),
    ("settings/model/trainable/first_layer", 7, "from layer 7 on"),
    (
        "settings/model/lora",
        {"rank": 8, "alpha": 32, "dropout": 0.1, "targets": ["q", "v"]},
        "rank 8, alpha 32, dropout",
    ),
    ("settings/model/head_lr", 0.0051, "0.0051 (head)"),
    ("settings/model/weight_decay", 0.02, "weight decay 0.02"),
    ("settings/model/warmup_fraction", 0.2, "first 20% of the steps"),
    ("settings/trainer/gradient_clip_val", 0.5, "clipped at 0.5"),
    ("settings/data/batch_size", 9, "batches of 9"),
    ("settings/data/window/n_trs", 15, "15 TRs"),
    ("settings/data/window/context_s", 12.5, "12.5 s of context"),
    ("provenance/versions/torch", "2.14.1", "PyTorch 2.14.1"),
    ("provenance/git/revision", "abcdef0123456789", "revision abcdef0123"),
]


@pytest.mark.parametrize(("path", "value", "expected"), NUMBERS, ids=[path for path, *_ in NUMBERS])
def test_a_changed_setting_changes_the_text(path: str, value: Any, expected: str) -> None:
    assert expected not in text_of(SUMMARY)
    assert expected in text_of(*changed((path, value)))


def test_no_number_comes_from_elsewhere() -> None:
    """Each number of the text stands in the files, or counts or rounds what does."""
    files = repr([SUMMARY, SETTINGS, PROVENANCE])
    found = set(re.findall(r"\d+(?:\.\d+)*", text_of(SUMMARY)))
    counted = {"3", "2", "11", "1"}  # listeners, and stories of a role
    rounded = {"94.37", "0.41", "0.56", "0.20", "0.16", "12", "9"}  # of 94371712, hours, 0.12; hidden state 12 + 1 - 4
    published = {"2025", "2023", "2021", "2022", "95", "0"}  # years of papers, the level of intervals, "fell to 0"
    known = set(re.findall(r"\d+(?:\.\d+)*", files)) | counted | rounded | published | {"1c1f387a04"}
    assert {number for number in found if number not in known and number not in "1c1f387a04"} == set()


LEAVES = sorted(
    {path for path, *_ in NUMBERS} - {"settings/model/lora"}
    | {"summary/run/backbone", "settings/model", "settings/data"}
)


@pytest.mark.parametrize("path", LEAVES)
def test_what_is_not_known_is_left_out(path: str) -> None:
    whole, text = text_of(SUMMARY), text_of(*changed((path, None)))
    assert text != whole
    assert "None" not in text
    assert not re.search(r"\(\s*[;,)]|[;,]\s*\)|\s[.,;]|\(\)|\.\.|  ", text)
    numbers = re.compile(r"\d+(?:\.\d+)*")
    added = set(numbers.findall(text)) - set(numbers.findall(whole))
    assert added <= set(numbers.findall(repr(SUMMARY))), "another number of the run, such as the rate that it chose"


def test_a_run_that_says_nothing_has_no_methods() -> None:
    nothing = {"run": {}, "probe": {"subjects": {}}, "stages": {}, "scores": [], "held_out": {}}
    assert methods_paragraphs(nothing, {}, {}) == []
    toy = {"backbone": {"family": "toy", "weights": "none"}, "regime": "brain"}
    assert methods_paragraphs({**nothing, "run": toy}, {}, {}) == [
        "Model. The speech model was toy (none).",
        f"Tuning. {REGIMES['brain']}.",
    ]
    assert done_said(nothing) == "A speech model and the brain responses of listeners"


def test_what_is_not_tuned_has_no_tuning() -> None:
    text = text_of(*changed(("summary/run/regime", "pretrained")))
    assert "It was not tuned." in text
    for absent in ("Tuning.", "trained", "to tune the model", "to choose", "before tuning"):
        assert absent not in text


@pytest.mark.parametrize("regime", REGIMES)
def test_every_regime_is_said(regime: str) -> None:
    control = ("settings/data/control", {"kind": "blocks", "block_trs": 13, "min_shift_trs": 37})
    text_model = ("settings/data/language_model", {"weights": "gpt2"})
    objective = ("settings/model/objective/targets", 0.0 if regime == "stimulus" else 1.0)
    summary, settings, provenance = changed(("summary/run/regime", regime), control, text_model, objective)
    text = text_of(summary, settings, provenance)
    assert REGIMES[regime] in text
    assert ("blocks of 13 TRs, moved by at least 37 TRs" in text) == (regime == "permuted")
    assert ("(gpt2)" in text) == (regime == "language_model")
    assert ("The loss was" in text) == (regime != "stimulus")
    assert done_said(summary) == f"HuBERT (facebook/hubert-base-ls960) {TUNED[regime]} 3 listeners"


def test_every_name_of_a_setting_has_words() -> None:
    assert LOSSES.keys() >= TARGET_LOSSES.keys()
    for kind in HEADS:
        assert "a head of kind" not in text_of(*changed(("settings/model/head/kind", kind)))
    assert "a head of kind mine" in text_of(*changed(("settings/model/head/kind", "mine")))
    for schedule in SCHEDULES:
        assert "{" not in text_of(*changed(("settings/model/schedule", schedule)))


def test_stories_of_two_roles_are_not_said_to_be_apart() -> None:
    assert "no story had two roles" in text_of(SUMMARY)
    assert "no story had" not in text_of(*changed(("summary/run/data_module/roles/choose", ["life[0:20]"])))


def test_folds_and_groups_and_simulated_listeners_are_said() -> None:
    folds = ("summary/probe/folds", {"n": 5, "within_stories": False, "purge_trs": 0})
    text = text_of(*changed(folds, ("summary/run/simulated", True)))
    assert "5 folds, every row scored once" in text
    assert "drawn within each held-out fold" in text
    assert "No brain was measured." in text
    group = {"run": {"simulated": True}, "probe": {"subjects": {"all": {"members": {"a": ["p", "q"]}}}}}
    assert listeners_said(group) == "1 group of simulated listeners"


def test_the_title_counts_those_who_were_tuned_on() -> None:
    held_out = ("summary/probe/subjects/UTS08", {"n_used": 30_000, "tuned_on": False})
    assert done_said(changed(held_out)[0]).endswith("tuned on the brain responses of 2 listeners, 1 more held out")
    alone = changed(held_out, ("summary/run/regime", "language_model"))[0]
    assert done_said(alone).endswith("against the brain responses of 3 listeners")


def test_features_of_ones_own_are_no_model() -> None:
    words = "features of mine.h5 (columns by layer: 1: 12, 2: 24)"
    summary, settings, provenance = changed(
        ("summary/run/regime", "features"), ("summary/run/model", words), ("summary/run/backbone", None)
    )
    text = text_of(summary, settings, provenance)
    assert text.startswith(f"Model. What was probed were {words}.")
    assert "Tuning." not in text
    assert done_said(summary) == f"{words} against the brain responses of 3 listeners"


def test_works_are_those_of_model_and_data() -> None:
    assert [work.key for work in works_of(SUMMARY)] == [
        "moussa2025improving",
        "duprelatour2022feature",
        "lebel2023natural",
        "hsu2021hubert",
    ]
    more = {**SUMMARY, "held_out": {"x": {"data_set": "narratives"}}}
    assert "nastase2021narratives" in bibtex_of(more, PROVENANCE)
    probed = {"run": {"model": "whisper (openai/whisper-base), 6 layers", "data": "deniz2019, TR 2 s"}, "held_out": {}}
    assert [work.key for work in works_of(probed)][2:] == ["deniz2019representation", "radford2022robust"]


def test_the_file_is_markdown_with_bibtex() -> None:
    text = methods_markdown("Title", ["Model. One. Two.", "Data. Three."], "@misc{a}", "Whoever 2020")
    assert text == ("# Title\n\n**Model.** One. Two.\n\n**Data.** Three.\n\nWhoever 2020\n\n```bibtex\n@misc{a}\n```\n")


def test_settings_are_those_of_the_configuration_else_of_the_model(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == {}
    (tmp_path / "hparams.yaml").write_text("layer: 3\n")
    assert read_settings(tmp_path) == {"model": {"layer": 3}}
    (tmp_path / "config.yaml").write_text("model:\n  layer: 4\n")
    assert read_settings(tmp_path) == {"model": {"layer": 4}}
    (tmp_path / "config.yaml").write_text("model: {layer: last, loss: mse, optimizer: adam}\ndata: mine\n")
    assert read_settings(tmp_path) == {"model": {"optimizer": "adam"}}, "names of somebody's own module"
    (tmp_path / "config.yaml").write_text("- 1\n")
    with pytest.raises(UnreadableFileError, match=r"config\.yaml is not the configuration of a run"):
        read_settings(tmp_path)


def test_a_frozen_speech_model_is_said() -> None:
    head_alone = ("settings/model/trainable", {"upper_layers": 0, "projection": False})
    assert "Only the head trained; all weights of the speech model were frozen." in text_of(*changed(head_alone))
    part = ("settings/model/trainable", {"upper_layers": 0, "projection": True})
    assert "Only the head trained" not in text_of(*changed(part))
