from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from brainlit.downstream.representation import category_separation, cka_matrix, rsa, rsa_matrix, word_map, word_means
from brainlit.encoding.similarity import linear_cka

CATEGORIES = ["tools", "birds", "rivers", "dances"] * 10


def words_of(strength: float, seed: int = 0, n_features: int = 20) -> np.ndarray:
    """40 words, each its category's centre x strength + noise."""
    rng = np.random.default_rng(seed)
    centre = dict(zip(sorted(set(CATEGORIES)), rng.standard_normal((4, n_features)), strict=True))
    return strength * np.stack([centre[name] for name in CATEGORIES]) + rng.standard_normal((40, n_features))


def test_word_means_are_over_the_tokens_of_a_word() -> None:
    names, means = word_means([[1.0, 2.0], [5.0, 5.0], [3.0, 4.0]], ["b", "a", "b"])
    assert names == ("a", "b")
    assert means.tolist() == [[5, 5], [2, 3]]
    with pytest.raises(ValueError, match="1 vectors and 2 words"):
        word_means([[1.0]], ["a", "b"])


def test_rsa_is_the_rank_correlation_of_distances_and_its_p_permutes_words() -> None:
    x, y = words_of(1), words_of(1)[:, :10]
    found = rsa(x, y, n_permutations=99)
    slow = spearmanr(*(pdist(values - values.mean(axis=0), "cosine") for values in (x, y))).statistic
    assert found.rho == pytest.approx(slow)
    assert found.p == 0.01
    assert found.n_words == 40
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))[0]
    assert rsa(x, 3 * x @ turn + 1, n_permutations=9).rho == pytest.approx(1)


def test_rsa_of_unrelated_words_is_significant_as_often_as_it_may() -> None:
    p = [rsa(words_of(0, seed), words_of(0, seed + 1000), n_permutations=39).p for seed in range(60)]
    assert 0 <= sum(value <= 0.05 for value in p) <= 8
    assert 0.35 < np.mean(p) < 0.65
    assert np.isnan(rsa(np.ones((5, 3)), words_of(0)[:5]).rho)


def test_matrices_have_a_row_and_a_column_for_each_layer() -> None:
    one = {0: words_of(0), 1: words_of(1), 2: 2 * words_of(1)}
    other = {0: words_of(1, seed=1), 4: words_of(1)}
    cka, ranks = cka_matrix(one, other), rsa_matrix(one, other)
    assert cka.shape == ranks.shape == (3, 2)
    in_sds = [(values - values.mean(axis=0)) / values.std(axis=0) for values in (one[0], other[0])]
    assert cka[0, 0] == pytest.approx(linear_cka(*in_sds, debiased=True))
    assert cka_matrix(one, other, in_sds=False)[0, 0] == linear_cka(one[0], other[0], debiased=True)
    assert cka[1, 1] == pytest.approx(cka[2, 1])
    assert ranks[1, 0] == pytest.approx(rsa(one[1], other[0], n_permutations=1).rho)
    assert ranks[1:, 1] == pytest.approx([1, 1])
    for table in (cka_matrix, rsa_matrix):
        with pytest.raises(ValueError, match=r"layers have \[39, 40\] rows"):
            table(one, {0: words_of(0)[1:]})


def test_separation_grows_with_what_is_planted_and_noise_has_none() -> None:
    none, some, much = (
        category_separation(words_of(strength), CATEGORIES, n_permutations=99) for strength in (0, 0.6, 3)
    )
    assert none.p > 0.05
    assert none.accuracy < 0.45
    assert none.accuracy < some.accuracy < much.accuracy == 1
    assert none.silhouette < some.silhouette < much.silhouette
    assert none.between_over_within == pytest.approx(1, abs=0.05)
    assert much.between_over_within > 3
    assert much.p == 0.01
    assert 0.15 < much.chance < 0.3


def test_a_word_never_counts_in_its_own_centroid() -> None:
    """Words that are all alone would each be nearest to a centroid that holds them."""
    values = np.eye(12)
    labels = ["a", "b", "c"] * 4
    unit = values - values.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    right = 0
    for k, label in enumerate(labels):
        rest = [j for j in range(12) if j != k]
        centres = {name: np.mean([unit[j] for j in rest if labels[j] == name], axis=0) for name in "abc"}
        near = {name: unit[k] @ centre / np.linalg.norm(centre) for name, centre in centres.items()}
        right += near[label] > max(value for name, value in near.items() if name != label) - 1e-12
    assert category_separation(values, labels, n_permutations=9).accuracy <= right / 12
    random = words_of(0.6)
    unit = random - random.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    hits = 0
    for k in range(40):
        names = sorted(set(CATEGORIES))
        centres = [np.mean([unit[j] for j in range(40) if j != k and CATEGORIES[j] == n], axis=0) for n in names]
        hits += names[int(np.argmax([unit[k] @ c / np.linalg.norm(c) for c in centres]))] == CATEGORIES[k]
    assert category_separation(random, CATEGORIES, n_permutations=9).accuracy == hits / 40


def test_the_map_projects_and_turns_but_does_not_stretch() -> None:
    before, after = words_of(0.5), words_of(3)
    found = word_map(before, after, [str(k) for k in range(40)], CATEGORIES)
    unit = after - after.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    sizes = np.linalg.svd(unit - unit.mean(axis=0), compute_uv=False)
    assert found.explained[1] == pytest.approx(np.square(sizes[:2]).sum() / np.square(sizes).sum())
    assert np.square(found.after - found.after.mean(axis=0)).sum() == pytest.approx(np.square(sizes[:2]).sum())
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))[0]
    same = word_map(before, before @ turn, [str(k) for k in range(40)], CATEGORIES)
    assert same.after == pytest.approx(same.before)
    assert found.separation[0].accuracy < found.separation[1].accuracy


def test_tsne_is_repeatable() -> None:
    maps = [
        word_map(words_of(1)[:12], words_of(2)[:12], list("abcdefghijkl"), CATEGORIES[:12], method="tsne", seed=seed)
        for seed in (0, 0)
    ]
    assert np.array_equal(maps[0].after, maps[1].after)
    assert np.isnan(maps[0].explained[0])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="it is 'pca' or 'tsne'"):
        word_map(words_of(1), words_of(1), CATEGORIES, CATEGORIES, method="umap")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="40 vectors, 2 words"):
        word_map(words_of(1), words_of(1), ["a", "b"], CATEGORIES)
    with pytest.raises(ValueError, match="two words or more in each"):
        category_separation(words_of(1)[:3], ["a", "a", "b"])
    with pytest.raises(ValueError, match="need the same ones, at least 4"):
        rsa(words_of(1), words_of(1)[:3])
    with pytest.raises(ValueError, match="need finite values"):
        rsa(np.full((5, 2), np.nan), words_of(1)[:5])
