"""Roles with folds: which spans they score, and what is refused with which cure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.datamodules import StoryDataModule, WindowConfig
from brainlit.splits import Clock, Folds, LeakError, Span
from brainlit.stories import Story
from tests.toy import ToySource, TwoClocks


class SameSound(ToySource):
    """toy1 is the sound of toy0, and toy2 and toy3 are the two runs of one story."""

    name = "same_sound"

    def story(self, name: str) -> Story:
        return replace(super().story("toy0" if name == "toy1" else name), name=name)

    def parts(self) -> dict[str, str]:
        return {"toy2": "tale", "toy3": "tale"}


def folded(path: Path, source: ToySource | None = None, **settings: Any) -> StoryDataModule:
    """A data module with folds, set up."""
    windows = WindowConfig(n_trs=8, context_s=4.0)
    module = StoryDataModule(source or ToySource(), str(path), window=windows, batch_size=3, **settings)
    module.prepare_data()
    module.setup()
    return module


def scored(module: StoryDataModule) -> list[list[str]]:
    assert module.roles.folds is not None
    return [[str(span) for span in own] for own in module.roles.folds.scored]


def test_stories_are_held_out_whole(toy_store_path: Path) -> None:
    module = folded(toy_store_path, roles={"folds": 3, "purge": "auto"})
    assert scored(module) == [
        ["toy0[0:40]", "toy3[0:40]"],
        ["toy1[0:40]", "toy4[0:40]"],
        ["toy2[0:40]", "toy5[0:40]"],
    ]
    folds = module.roles.folds
    assert folds is not None
    assert [str(span) for span in folds.fit_spans(0, 10)] == [f"toy{k}[0:40]" for k in (1, 4, 2, 5)]
    assert module.roles.spans("fit") == module.roles.spans("score") == folds.spans
    assert module.describe()["n_folds"] == 3


def test_what_is_tuned_on_or_chosen_by_is_never_scored(toy_store_path: Path) -> None:
    roles = {"folds": 2, "tune": ["toy0", "toy1"], "choose": ["toy4"]}
    module = folded(toy_store_path, roles=roles)
    assert scored(module) == [["toy2[0:40]", "toy5[0:40]"], ["toy3[0:40]"]]
    assert {span.story for span in module._tune_spans()} == {"toy0", "toy1"}
    probed = StoryDataModule(ToySource(), str(toy_store_path), roles=roles)  # type: ignore[arg-type]
    probed.only_probe()
    probed.setup()
    assert scored(probed) == scored(module)
    assert not probed.roles.spans("tune")
    assert probed.not_tuned_on == ["toy0", "toy1"]
    with pytest.raises(LeakError, match=r"toy0\[0:40\] \(tune\) and toy0\[0:40\] \(score\) share 40 TRs.*roles.over"):
        folded(toy_store_path, roles={**roles, "over": ["toy0", "toy2"]})


def test_a_single_story_is_cut_into_stretches(toy_store_path: Path) -> None:
    module = folded(toy_store_path, roles={"folds": 3, "over": ["toy5"], "purge": 6})
    assert scored(module) == [["toy5[0:13]"], ["toy5[13:26]"], ["toy5[26:40]"]]
    folds = module.roles.folds
    assert folds is not None
    assert folds.purge_s == 6.0
    assert [str(span) for span in folds.fit_spans(1, 3)] == ["toy5[0:10]", "toy5[29:40]"]
    pieces = folded(toy_store_path, roles={"folds": 2, "over": ["toy5[0:10]", "toy5[20:40]"]})
    assert scored(pieces) == [["toy5[0:10]", "toy5[20:25]"], ["toy5[25:40]"]]


def test_one_sound_and_the_runs_of_one_story_stay_together(tmp_path: Path) -> None:
    module = folded(tmp_path / "store", SameSound(), roles={"folds": 4})
    assert scored(module) == [
        ["toy0[0:40]", "toy1[0:40]"],
        ["toy2[0:40]", "toy3[0:40]"],
        ["toy4[0:40]"],
        ["toy5[0:40]"],
    ]
    with pytest.raises(ValueError, match=r"roles.folds is 5, and there are 4 stories that can be held out apart"):
        folded(tmp_path / "store", SameSound(), roles={"folds": 5})
    runs = folded(tmp_path / "store", SameSound(), roles={"folds": 2, "over": ["tale"]})
    assert scored(runs) == [["toy2[0:40]"], ["toy3[0:40]"]]
    twice = folded(tmp_path / "store", SameSound(), roles={"folds": 2, "over": ["toy0", "toy1"]})
    assert scored(twice) == [["toy0[0:20]", "toy1[0:20]"], ["toy0[20:40]", "toy1[20:40]"]]
    with pytest.raises(ValueError, match="one sound under several names with other rows"):
        folded(tmp_path / "store", SameSound(), roles={"folds": 2, "over": ["toy0", "toy1[0:30]"]})


def test_rows_on_another_clock_follow_the_sound(tmp_path: Path) -> None:
    module = folded(tmp_path / "store", TwoClocks(), roles={"folds": 2, "over": ["toy5"]})
    assert scored(module) == [["toy5[0:20]", "toy5.B[3:23]"], ["toy5[20:40]", "toy5.B[23:40]"]]


def test_purging_counts_on_the_clock_of_the_sound() -> None:
    """Row 0 of the other clock is row -3 of the story's, so what lies beside rows 20..39 lies 3 rows later there."""
    folds = Folds(((Span("a", 20, 40),), (Span("a", 0, 20), Span("b", 0, 60))))
    spans = folds.fit_spans(0, 5, {"b": Clock("a", -3.0)})
    assert spans == (Span("a", 0, 15), Span("b", 0, 18), Span("b", 48, 60))
    assert folds.fit_spans(0, 0) == (Span("a", 0, 20), Span("b", 0, 60))


def test_no_row_is_fitted_and_scored_within_the_purge() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        edges = np.sort(rng.choice(200, 6, replace=False))
        folds = Folds(tuple((Span("a", int(a), int(b)),) for a, b in pairwise(edges)))
        purge_trs = int(rng.integers(0, 15))
        for k, (own,) in enumerate(folds.scored):
            fitted = [tr for span in folds.fit_spans(k, purge_trs) for tr in range(span.start_tr, span.stop_tr)]
            expected = [
                tr
                for tr in range(int(edges[0]), int(edges[-1]))
                if tr < own.start_tr - purge_trs or tr >= own.stop_tr + purge_trs
            ]
            assert fitted == expected


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"folds": 1}, "roles.folds is 1; give a whole number, 2 or more"),
        ({"folds": 2.5}, "roles.folds is 2.5"),
        ({"folds": 2, "fit": ["toy2"]}, "roles has folds and 'fit'.*Leave out 'fit', or leave out folds"),
        ({"folds": 2, "score": ["toy2"]}, "roles has folds and 'score'.*name them in roles.over"),
        ({"folds": 2, "puge": 3}, "roles has folds and 'puge'. Did you mean 'purge'"),
        ({"folds": 2, "purge": "some"}, "roles.purge is 'some'; give 'auto', or seconds"),
        ({"folds": 2, "purge": -1}, "roles.purge is -1"),
        ({"folds": 2, "tune": "toy0"}, r"roles.tune is 'toy0'; give a list of stories or spans, such as \[toy0\]"),
        ({"folds": 7}, "roles.folds is 7, and there are 6 stories.*at most 6 folds, or name one of them in roles.over"),
        ({"folds": 5, "over": ["toy5"]}, r"toy5\[0:40\] has 40 TRs, too few for 5 folds of at least 10"),
        ({"folds": 2, "tune": [f"toy{k}" for k in range(6)]}, "nothing is left for folds; name it in roles.over"),
        ({"fit": ["toy2"], "score": ["toy5"], "purge": 10}, "roles.purge is for folds.*add roles.folds"),
        ({"fit": "toy2"}, r"roles.fit is 'toy2'; give a list"),
    ],
)
def test_wrong_roles_are_refused_with_the_cure(roles: Mapping[str, Any], message: str, toy_store_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        folded(toy_store_path, roles=roles)


def test_exceptions_in_words_and_missing_tuning_are_refused(toy_store_path: Path) -> None:
    with pytest.raises(ValueError, match="what is tuned on or chosen by is never scored with folds"):
        folded(toy_store_path, roles={"folds": 2}, allow=["tune and fit"])
    with pytest.raises(ValueError, match=r"roles has folds and nothing to tune on.*give roles.tune"):
        folded(toy_store_path, roles={"folds": 2}).setup("fit")
    folded(toy_store_path, roles={"folds": 2}, regime="pretrained").setup("fit")
