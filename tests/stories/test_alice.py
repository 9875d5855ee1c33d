"""Ten real listeners: what is known about the recordings comes back through brainlit's own functions."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from brainlit.encoding.arrays import delay_within
from brainlit.encoding.banded import banded_ridge_cv
from brainlit.encoding.search import make_folds
from brainlit.encoding.statistics import correlation
from brainlit.features import word_rate
from brainlit.store import build_store, check_store
from brainlit.store.between_members import between_members
from brainlit.stories import GroupMean, ManifestSource, SubjectLeftOut

MANIFEST = Path(__file__).parents[2] / "data" / "alice" / "manifest.yaml"
REGIONS = ["LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG"]
Array = npt.NDArray[np.float64]

pytestmark = pytest.mark.usefixtures("alice")


@cache
def _word_rate_and_mean_response() -> tuple[Array, Array]:
    """Words per TR (362, 1) and the mean over the ten listeners (362, 6)."""
    source = ManifestSource(str(MANIFEST))
    responses = [source.responses(name, "alice") for name in source.subject_names() if name != "s33"]
    mean = np.mean([one.values for one in responses if one is not None], axis=0, dtype=np.float64)
    return word_rate(source.story("alice")).values.astype(np.float64), mean


def _held_out_r(rate: Array, response: Array) -> dict[str, float]:
    """Word rate at FIR delays 1-4, ridge, five contiguous folds with a gap of six TRs: r over held-out time."""
    groups = np.zeros(len(rate), dtype=np.int64)
    delayed = delay_within(rate, groups, (1, 2, 3, 4)).astype(np.float64)
    predicted = np.full_like(response, np.nan)
    for fold in make_folds(groups, 5, purge_trs=6):
        mean_x, mean_y = delayed[fold.train].mean(axis=0), response[fold.train].mean(axis=0)
        X, Y = {"X": delayed[fold.train] - mean_x}, response[fold.train] - mean_y
        fit = banded_ridge_cv(X, Y, groups[fold.train], purge_trs=6)
        predicted[fold.held_out] = (delayed[fold.held_out] - mean_x) @ fit.weights["X"] + mean_y
    return dict(zip(REGIONS, correlation(predicted, response).tolist(), strict=True))


def test_the_damaged_listener_is_left_out_and_ten_remain() -> None:
    source = ManifestSource(str(MANIFEST))
    assert len(source.subject_names()) == 11
    with pytest.raises(SubjectLeftOut, match=r"^every column is constant or holds NaN \(see s33\.txt\)$"):
        source.subject("s33")
    assert list(source.subject("s18").regions) == REGIONS
    responses = source.responses("s18", "alice")
    assert responses is not None
    assert responses.values.shape == (362, 6)
    assert np.isfinite(responses.values).all()


def test_the_store_holds_ten_listeners_and_says_who_is_missing(tmp_path: Path) -> None:
    store = build_store(ManifestSource(str(MANIFEST)), tmp_path, progress=False)
    assert len(store.subject_names) == 10
    assert "s33" not in store.subject_names
    assert store.left_out == {
        "s33": "every column is constant or holds NaN (see s33.txt)",
        "phone_rate, phone_classes": "need phone times; no phones in: alice",
    }
    assert all(store.good_voxels(name).all() for name in store.subject_names)
    assert store.n_trs("alice") == 362
    assert [finding for finding in check_store(tmp_path) if finding.level == "error"] == []


def test_the_clock_and_the_words() -> None:
    story = ManifestSource(str(MANIFEST)).story("alice")
    assert story.timebase.tr_starts_s[0] == 20.0
    assert story.timebase.end_s == 744.0
    assert story.words.labels[:4] == ("Alice", "was", "beginning", "to")
    assert story.words.start_s[0] == pytest.approx(20.0589, abs=1e-4)
    assert "sp" not in story.words.labels
    assert story.phones is None


def test_word_rate_predicts_the_mean_listener_and_only_on_time() -> None:
    rate, response = _word_rate_and_mean_response()
    on_time = _held_out_r(rate, response)
    assert on_time["LPTL"] >= 0.2
    assert on_time["LIPL"] >= 0.2
    for shift in (-3, 3):
        rows = slice(max(shift, 0), len(rate) + min(shift, 0))
        moved = slice(max(-shift, 0), len(rate) + min(-shift, 0))
        shifted = _held_out_r(rate[rows], response[moved])
        assert shifted["LPTL"] < on_time["LPTL"]
        assert shifted["LIPL"] < on_time["LIPL"]


def test_the_group_is_the_ten_and_they_agree_as_plain_correlations_say(tmp_path: Path) -> None:
    """Leave-one-out r over six regions and ten people, by numpy from the source's own responses."""
    store = build_store(GroupMean(ManifestSource(str(MANIFEST))), tmp_path, progress=False)
    source = ManifestSource(str(MANIFEST))
    names = [name for name in source.subject_names() if name != "s33"]
    assert store.members("group") == {"alice": names}
    assert store.left_out["s33"] == "every column is constant or holds NaN (see s33.txt)"
    each = np.stack([one.values for name in names if (one := source.responses(name, "alice")) is not None])
    np.testing.assert_allclose(store.responses("group", "alice"), each.mean(axis=0), atol=1e-6)
    found = between_members(store, "group").r
    for k, name in enumerate(names):
        others = np.delete(each, k, axis=0).mean(axis=0)
        expected = [np.corrcoef(each[k, :, v], others[:, v])[0, 1] for v in range(len(REGIONS))]
        np.testing.assert_allclose(found[name], expected, atol=1e-5)
    assert np.mean(list(found.values())) == pytest.approx(0.19, abs=0.005)
