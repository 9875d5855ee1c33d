"""How far people agree, against what is planted, in closed form and by the plainest reckoning."""

from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding.ceiling import noise_ceiling
from brainlit.encoding.inter_subject import leave_one_out_r
from tests.crowd import Shares


def people(n: int, a: float, own: float, n_trs: int = 4000, n_voxels: int = 12, seed: int = 0) -> np.ndarray:
    """z-scored (n, n_trs, n_voxels): a part a of the variance shared, a part `own` each one's, the rest noise."""
    rng = np.random.default_rng([seed, n])
    shared = rng.standard_normal((1, n_trs, n_voxels))
    signal, noise = (rng.standard_normal((n, n_trs, n_voxels)) for _ in range(2))
    values = np.sqrt(a) * shared + np.sqrt(own) * signal + np.sqrt(1 - a - own) * noise
    return (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)


@pytest.mark.parametrize(("n", "a"), [(2, 0.5), (3, 0.2), (10, 0.05), (10, 0.3)])
def test_agreement_and_ceilings_are_those_of_the_planted_shares(n: int, a: float) -> None:
    """What is each one's own counts as noise, whatever part of it the stimulus drove."""
    values, planted = people(n, a, own=0.3), Shares(a, n)
    names = [f"p{k}" for k in range(n)]
    found = leave_one_out_r([values], [names])
    assert list(found) == names
    assert np.mean(list(found.values())) == pytest.approx(planted.one_with_the_others, abs=0.01)
    ceiling = noise_ceiling(values)
    assert ceiling.ceiling_r.mean() == pytest.approx(planted.ceiling_of_the_mean, abs=0.01)
    assert np.sqrt(ceiling.explainable_variance).mean() == pytest.approx(planted.ceiling_of_one, abs=0.01)
    halves = noise_ceiling(values, method="split_half")
    assert halves.ceiling_r.mean() == pytest.approx(planted.ceiling_of_the_mean, abs=0.01), "Spearman and Brown"


def test_two_people_have_their_correlation() -> None:
    values = people(2, 0.4, 0.1, n_trs=50)
    expected = [np.corrcoef(values[0][:, v], values[1][:, v])[0, 1] for v in range(values.shape[2])]
    for r in leave_one_out_r([values], [("a", "b")]).values():
        np.testing.assert_allclose(r, expected, rtol=1e-10)


def test_stories_with_other_people_are_taken_together() -> None:
    """Each person's rows, one after the other, against the mean of whoever heard the same."""
    first, second = people(3, 0.3, 0.2, n_trs=70, n_voxels=3) + 5, people(2, 0.3, 0.2, n_trs=40, n_voxels=3)
    found = leave_one_out_r([first, second], [("a", "b", "c"), ("c", "a")])
    first = first - first.mean(axis=1, keepdims=True)
    of_a = np.concatenate([first[0], second[1]]), np.concatenate([first[1:].mean(axis=0), second[0]])
    of_b = first[1], first[[0, 2]].mean(axis=0)
    for name, (own, others) in (("a", of_a), ("b", of_b)):
        expected = (own * others).sum(axis=0) / np.sqrt((own**2).sum(axis=0) * (others**2).sum(axis=0))
        np.testing.assert_allclose(found[name], expected, rtol=1e-10)


def test_a_voxel_without_data_has_no_number() -> None:
    values = people(3, 0.3, 0.2, n_trs=50, n_voxels=3)
    values[1, 4, 0] = np.nan
    values[:, :, 1] = 1.0
    for r in leave_one_out_r([values], ["abc"]).values():
        assert np.isnan(r).tolist() == [True, True, False]


@pytest.mark.parametrize(("shape", "names"), [((1, 9, 2), ["a"]), ((3, 9, 2), ["a", "b"]), ((9, 2), ["a", "b"])])
def test_what_is_no_group_is_refused(shape: tuple[int, ...], names: list[str]) -> None:
    with pytest.raises(ValueError, match="at least two people and a name for each"):
        leave_one_out_r([np.ones(shape)], [names])
