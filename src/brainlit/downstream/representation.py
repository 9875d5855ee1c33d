"""How word representations of two models or layers compare: RSA, CKA, separation of categories, and a map of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, FloatArray, IntArray
from brainlit.encoding.similarity import linear_cka, standardised
from brainlit.encoding.statistics import permutation_p

Layers: TypeAlias = Mapping[int, Array]
"""Layer -> array of shape (n_rows, n_features), as `clip_features` gives them; rows are words, tokens or TRs."""
MapMethod = Literal["pca", "tsne"]


@dataclass(frozen=True)
class Rsa:
    """Agreement of two sets of word representations.

    Parameters
    ----------
    rho : float
        Rank correlation of the two dissimilarity matrices; NaN where one does not vary.
    p : float
        One-sided, by permuting the words of one of them; never 0.
    n_words : int
    """

    rho: float
    p: float
    n_words: int


@dataclass(frozen=True)
class Separation:
    """How well the categories of words stand apart.

    Parameters
    ----------
    accuracy : float
        Share of words whose nearest centroid is their category's, each word left out of all centroids in turn: a word
        type is never compared with itself, so this is about words that were not there.
    chance : float
        Mean accuracy when categories are permuted over words.
    p : float
        One-sided, of the accuracy; never 0.
    silhouette : float
        Mean over words of (b - a) / max(a, b), a and b being mean cosine distances to the own and the nearest other
        category (Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7).
    between_over_within : float
        Mean cosine distance of words of two categories over that of words of one; NaN where the latter is 0.
    n_words, n_categories : int
    """

    accuracy: float
    chance: float
    p: float
    silhouette: float
    between_over_within: float
    n_words: int
    n_categories: int


@dataclass(frozen=True, eq=False)
class WordMap:
    """Words in the plane, before and after.

    Parameters
    ----------
    words, categories : tuples of str, length n_words
    before, after : arrays of shape (n_words, 2)
        `after` is turned or mirrored onto `before`; nothing else is done to either.
    method : 'pca' or 'tsne'
    explained : tuple of two float
        Share of the variance that the plane holds, before and after; NaN for t-SNE.
    separation : tuple of two Separation
        In all dimensions, before and after: a plane shows less.
    """

    words: tuple[str, ...]
    categories: tuple[str, ...]
    before: FloatArray
    after: FloatArray
    method: MapMethod
    explained: tuple[float, float]
    separation: tuple[Separation, Separation]


def word_means(values: npt.ArrayLike, words: Sequence[str]) -> tuple[tuple[str, ...], FloatArray]:
    """Mean vector of each word over its tokens: the words, sorted, and an array of shape (n_words, n_features).

    Parameters
    ----------
    values : array of shape (n_tokens, n_features)
    words : sequence of str, length n_tokens
    """
    vectors = _rows(values)
    if len(vectors) != len(words):
        raise ValueError(f"{len(vectors)} vectors and {len(words)} words; need one of each per token.")
    names, index = np.unique(np.asarray(words, dtype=np.str_), return_inverse=True)
    total = np.zeros((len(names), vectors.shape[1]))
    np.add.at(total, index, vectors)
    return tuple(names.tolist()), total / np.bincount(index)[:, None]


def rsa(x: npt.ArrayLike, y: npt.ArrayLike, *, n_permutations: int = 1000, seed: int = 0) -> Rsa:
    """Representational similarity analysis (Kriegeskorte et al. 2008, doi:10.3389/neuro.06.004.2008).

    Spearman's correlation of the cosine distances between all two words in x with those in y, each centred over words
    first. Pairs of words share words and are not independent, so p permutes words, not pairs.

    Parameters
    ----------
    x : array of shape (n_words, n_features_x)
    y : array of shape (n_words, n_features_y)
        The same words in the same order; features may be other ones.

    Raises
    ------
    ValueError
        If the words are not as many, or fewer than 4.
    """
    one, other = _same_rows(x, y)
    ranks_x, ranks_y = (_standard_ranks(_distances(values)) for values in (one, other))
    if not (ranks_x.any() and ranks_y.any()):
        return Rsa(float("nan"), float("nan"), len(one))
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(one)) for _ in range(n_permutations)]
    null = [float(np.sum(ranks_x * ranks_y[np.ix_(order, order)])) / 2 for order in orders]
    rho = float(np.sum(ranks_x * ranks_y)) / 2
    return Rsa(rho, float(permutation_p(rho, null)), len(one))


def rsa_matrix(one: Layers, other: Layers) -> FloatArray:
    """Rank correlation of each layer of one model with each of another, shape (n_layers_one, n_layers_other).

    Layers are in the order of the mappings; rows are words, as in `rsa`. Without p-values: take `rsa` for those.
    """
    sides = [[_standard_ranks(_distances(_rows(values))) for values in model.values()] for model in (one, other)]
    _check_rows(one, other)
    return np.asarray([[np.sum(a * b) / 2 if a.any() and b.any() else np.nan for b in sides[1]] for a in sides[0]])


def cka_matrix(one: Layers, other: Layers, *, debiased: bool = True, in_sds: bool = True) -> FloatArray:
    """Linear CKA of each layer of one model with each of another, shape (n_layers_one, n_layers_other).

    Parameters
    ----------
    one, other : mapping of layer to array of shape (n_rows, n_features)
        The same rows (words, tokens or TRs); the same model twice gives layers x layers of one run.
    debiased : bool
        About 0 and not above it for unrelated layers, also with fewer rows than features; see `linear_cka`.
    in_sds : bool
        Count each dimension of a layer in units of its sd over the rows, so that a few massive ones do not decide
        alone (`encoding.similarity`). False: as they are, alike for any rotation.
    """
    _check_rows(one, other)
    sides = [[standardised(v) if in_sds else v for v in model.values()] for model in (one, other)]
    return np.asarray([[linear_cka(a, b, debiased) for b in sides[1]] for a in sides[0]])


def category_separation(
    values: npt.ArrayLike, categories: Sequence[str], *, n_permutations: int = 1000, seed: int = 0
) -> Separation:
    """How well categories stand apart among word representations, generalising over words.

    Parameters
    ----------
    values : array of shape (n_words, n_features)
        One vector per word type: see `word_means`.
    categories : sequence of str, length n_words

    Raises
    ------
    ValueError
        If there are fewer than two categories, or one has a single word.
    """
    from sklearn.metrics import silhouette_score

    vectors = _rows(values)
    names, label = np.unique(np.asarray(categories, dtype=np.str_), return_inverse=True)
    if len(vectors) != len(categories) or len(names) < 2 or np.bincount(label).min() < 2:
        raise ValueError(
            f"{len(vectors)} words and {len(categories)} labels of {len(names)} categories; need one label for each"
            " word, two categories or more, and two words or more in each."
        )
    unit = _directions(vectors)
    distance = _distances(vectors)
    rng = np.random.default_rng(seed)
    accuracy = _left_out_accuracy(unit, label)
    null = [_left_out_accuracy(unit, rng.permutation(label)) for _ in range(n_permutations)]
    pairs = np.triu_indices(len(unit), k=1)
    same, apart = (label[:, None] == label)[pairs], distance[pairs]
    within = float(apart[same].mean())
    return Separation(
        accuracy=accuracy,
        chance=float(np.mean(null)),
        p=float(permutation_p(accuracy, null)),
        silhouette=float(silhouette_score(distance, label, metric="precomputed")),
        between_over_within=float(apart[~same].mean()) / within if within > 0 else float("nan"),
        n_words=len(unit),
        n_categories=len(names),
    )


def word_map(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    words: Sequence[str],
    categories: Sequence[str],
    *,
    method: MapMethod = "pca",
    seed: int = 0,
) -> WordMap:
    """Words in the plane, before and after, each by its own two components.

    PCA is the default: it only projects. t-SNE tears neighbours and strangers apart, and shows groups in noise.

    Parameters
    ----------
    before, after : arrays of shape (n_words, n_features)
        One vector per word type: see `word_means`. Scaled to unit length after centring, as cosines see them.

    Raises
    ------
    ValueError
        If the method is unknown or the words are not as many.
    """
    if method not in ("pca", "tsne"):
        raise ValueError(f"method is {method!r}; it is 'pca' or 'tsne'.")
    sides = _same_rows(before, after)
    if not len(words) == len(categories) == len(sides[0]):
        raise ValueError(f"{len(sides[0])} vectors, {len(words)} words, {len(categories)} categories; need as many.")
    (first, share_a), (second, share_b) = (_plane(_directions(values), method, seed) for values in sides)
    one, other = (category_separation(values, categories, seed=seed) for values in sides)
    places = first, _turned(second, first)
    return WordMap(tuple(words), tuple(categories), *places, method, (share_a, share_b), (one, other))


def _plane(values: FloatArray, method: MapMethod, seed: int) -> tuple[FloatArray, float]:
    if method == "tsne":
        from sklearn.manifold import TSNE

        solver = TSNE(init="pca", perplexity=min(30.0, (len(values) - 1) / 3), random_state=seed)
        return np.asarray(solver.fit_transform(values), np.float64), np.nan
    centred = values - values.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(values), 2))
    places[:, : min(2, len(sizes))] = (left * sizes)[:, :2]
    power = np.square(sizes)
    return places, float(power[:2].sum() / power.sum()) if power.sum() > 0 else float("nan")


def _turned(places: FloatArray, onto: FloatArray) -> FloatArray:
    """Turned or mirrored so that words lie as near as they can to where they lie in the other."""
    middle = places.mean(axis=0)
    left, _, right = np.linalg.svd((places - middle).T @ (onto - onto.mean(axis=0)))
    return np.asarray((places - middle) @ left @ right + middle)


def _left_out_accuracy(unit: FloatArray, label: IntArray) -> float:
    """Share of rows whose most similar centroid is that of their label, without the row itself; cosine."""
    member = np.eye(label.max() + 1)[label]
    total, size = member.T @ unit, member.sum(axis=0)
    dot = unit @ total.T  # with each centroid's sum
    own = np.square(unit).sum(axis=1)
    norm = np.linalg.norm(total, axis=1) * np.ones((len(unit), 1))
    mine = np.arange(len(unit)), label
    norm[mine] = np.sqrt(np.maximum(np.square(norm[mine]) - 2 * dot[mine] + own, 0))
    dot[mine] -= own
    known = (norm > 0) & (size > 0)
    return float(np.mean(np.argmax(np.where(known, dot / np.where(known, norm, 1), -np.inf), axis=1) == label))


def _distances(vectors: FloatArray) -> FloatArray:
    """Cosine distance of every two rows after centring, shape (n, n), 0 on the diagonal."""
    unit = _directions(vectors)
    distance = np.clip(1 - unit @ unit.T, 0, 2)
    np.fill_diagonal(distance, 0)
    return np.asarray(distance)


def _standard_ranks(distance: FloatArray) -> FloatArray:
    """Ranks of the upper triangle with mean 0 and length 1, put back into a symmetric matrix; 0 if they do not vary."""
    from scipy.stats import rankdata

    pairs = np.triu_indices(len(distance), k=1)
    ranks = rankdata(distance[pairs].round(12))
    ranks -= ranks.mean()
    length = np.linalg.norm(ranks)
    table = np.zeros_like(distance)
    table[pairs] = ranks / length if length > 0 else 0
    return np.asarray(table + table.T)


def _directions(vectors: FloatArray) -> FloatArray:
    """Rows less their mean, of length 1; what is 0 but for rounding errors becomes 0."""
    vectors = vectors - vectors.mean(axis=0)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    sure = norm > 1e-12 * max(float(np.abs(vectors).max(initial=0)), 1e-300)
    return np.asarray(np.divide(vectors, norm, out=np.zeros_like(vectors), where=sure))


def _rows(values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not np.isfinite(array).all():
        raise ValueError(f"representations have shape {array.shape}; need finite values, (n_rows, n_features).")
    return array


def _same_rows(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    one, other = _rows(x), _rows(y)
    if len(one) != len(other) or len(one) < 4:
        raise ValueError(f"{len(one)} words and {len(other)}; need the same ones, at least 4.")
    return one, other


def _check_rows(one: Layers, other: Layers) -> None:
    sizes = {len(values) for model in (one, other) for values in model.values()}
    if len(sizes) != 1:
        raise ValueError(f"layers have {sorted(sizes)} rows; need the same rows in every layer of both.")
