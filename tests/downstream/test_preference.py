from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from brainlit.downstream.pairs import TokenPairs, WordPairs, find_pairs, pair_tokens
from brainlit.downstream.preference import Preference, pair_cosines, preference, preference_change
from brainlit.downstream.scores import BootstrapConfig

BOOTSTRAP = BootstrapConfig(n_boot=300)
VOICES = ("low", "high", "rough")
CATEGORIES = 8


def lexicon(seed: int = 0, n_words: int = 64) -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
    """Words of four phones, in families that differ by one phone, and their categories, drawn apart from the sound."""
    rng = np.random.default_rng(seed)
    stems = ["".join(rng.choice(list("bcdfgh"), size=3)) + str(k) for k in range(n_words // 4)]
    phones = {f"{stem}{end}": (*stem[:3], stem[3:], end) for stem in stems for end in "mnpq"}
    return phones, dict(zip(phones, rng.permutation(np.arange(n_words) % CATEGORIES).tolist(), strict=True))


@pytest.fixture(scope="module")
def pairs() -> WordPairs:
    phones, category = lexicon()
    related = {(a, b) for a, b in combinations(phones, 2) if category[a] == category[b]}
    return find_pairs(phones, related, "planted", max_per_kind=200)


@pytest.fixture(scope="module")
def tokens(pairs: WordPairs) -> TokenPairs:
    said = [(word, voice) for word in lexicon()[0] for voice in VOICES for _ in range(2)]
    return pair_tokens([word for word, _ in said], [voice for _, voice in said], pairs, n_each=3)


def planted(meaning: float, sound: float, noise: float = 0.5, offset: float = 0.0, seed: int = 0) -> np.ndarray:
    """A vector per token: meaning x its category's + sound x the sum of its phones' + its voice's + noise + offset."""
    phones, category = lexicon()
    rng = np.random.default_rng(seed)
    names = sorted({name for spoken in phones.values() for name in spoken})
    phone = dict(zip(names, rng.standard_normal((len(names), 40)), strict=True))
    centre, voice = rng.standard_normal((CATEGORIES, 40)), rng.standard_normal((len(VOICES), 40))
    rows = [
        meaning * centre[category[word]] + sound * sum(phone[name] for name in spoken) / 2 + voice[v]
        for word, spoken in phones.items()
        for v in range(len(VOICES))
        for _ in range(2)
    ]
    return np.asarray(rows) + noise * rng.standard_normal((len(rows), 40)) + offset


def one(values: np.ndarray, tokens: TokenPairs, centred: bool = True) -> Preference:
    return preference({3: values}, tokens, centred=centred, bootstrap=BOOTSTRAP)[0]


def test_mixtures_are_ranked_and_pure_ones_say_what_they_are(tokens: TokenPairs) -> None:
    shares = [0.0, 0.3, 0.5, 0.7]
    layers = preference({k: planted(share, 1 - share) for k, share in enumerate(shares)}, tokens, bootstrap=BOOTSTRAP)
    ratios = [layer.ratio for layer in layers]
    assert all(ratio is not None for ratio in ratios)
    values = [ratio.value for ratio in ratios if ratio is not None]
    assert values == sorted(values)
    assert ratios[0] is not None
    assert ratios[0].low < 0 < ratios[0].high
    assert abs(values[0]) < 0.1
    assert values[-1] > 3
    differences = [layer.difference for layer in layers]
    assert [effect.value for effect in differences] == sorted(effect.value for effect in differences)
    assert differences[0].high < 0 < differences[-1].low


def test_meaning_alone_has_no_ratio_and_a_clear_difference(tokens: TokenPairs) -> None:
    found = one(planted(1, 0), tokens)
    assert found.ratio is None
    assert "cannot tell the ratio" in found.words()
    assert found.semantic.low > 0.2
    assert found.difference.low > 0.2


def test_noise_prefers_nothing(tokens: TokenPairs) -> None:
    found = one(planted(0, 0), tokens)
    assert found.semantic.low < 0 < found.semantic.high
    assert found.ratio is None


def test_what_all_words_share_squeezes_raw_cosines_only(tokens: TokenPairs) -> None:
    plain, shifted = (one(planted(0.5, 0.5, offset=offset), tokens) for offset in (0, 30))
    raw = one(planted(0.5, 0.5, offset=30), tokens, centred=False)
    assert shifted.semantic.value == pytest.approx(plain.semantic.value)
    assert raw.cosines["random"] > 0.98
    assert 0 < raw.semantic.value < 0.05 * plain.semantic.value


def test_cosines_are_those_of_a_loop(pairs: WordPairs, tokens: TokenPairs) -> None:
    values = planted(0.5, 0.5)
    total = np.zeros(len(tokens.pairs))
    for a, b, pair, weight in zip(tokens.first, tokens.second, tokens.pair, tokens.weight, strict=True):
        total[pair] += weight * values[a] @ values[b] / np.linalg.norm(values[a]) / np.linalg.norm(values[b])
        words = tokens.pairs.words[tokens.pairs.first[pair]], tokens.pairs.words[tokens.pairs.second[pair]]
        assert (tokens.pairs.words[tokens.word[a]], tokens.pairs.words[tokens.word[b]]) == words
    assert pair_cosines(values, tokens, centred=False) == pytest.approx(total)
    assert np.bincount(tokens.pair, weights=tokens.weight) == pytest.approx(np.ones(len(tokens.pairs)))


def test_voices_are_no_cue(pairs: WordPairs) -> None:
    """One voice for half of the categories' words would make category mates alike by their voices."""
    category = lexicon()[1]
    said = [(word, voice) for word in category for voice in ("high", "low") for _ in range(1 + (voice == "low") * 2)]
    said = [(word, voice if category[word] < 4 else {"high": "low", "low": "high"}[voice]) for word, voice in said]
    tokens = pair_tokens([word for word, _ in said], [voice for _, voice in said], pairs)
    rng = np.random.default_rng(0)
    voice_of = {"high": rng.standard_normal(40), "low": rng.standard_normal(40)}
    values = np.asarray([voice_of[voice] for _, voice in said]) + 0.3 * rng.standard_normal((len(said), 40))
    assert abs(one(values, tokens, centred=False).semantic.value) < 0.01
    unmatched = np.corrcoef([values[[said_word == word for said_word, _ in said]].mean(axis=0) for word in category])
    mates = np.equal.outer(list(category.values()), list(category.values()))
    apart = ~np.eye(len(category), dtype=bool)
    assert unmatched[mates & apart].mean() - unmatched[~mates].mean() > 0.01


def test_a_change_is_paired(tokens: TokenPairs) -> None:
    before, after = planted(0.3, 0.7), planted(0.7, 0.3)
    change = preference_change({0: before, 1: before}, {0: before, 1: after}, tokens, bootstrap=BOOTSTRAP)
    assert (change[0].semantic.low, change[0].semantic.high) == (0, 0)
    first, second = one(before, tokens), one(after, tokens)
    assert change[1].difference.value == pytest.approx(second.difference.value - first.difference.value)
    assert change[1].difference.low > 0
    assert change[1].ratio is not None
    assert first.ratio is not None
    assert second.ratio is not None
    assert change[1].ratio.value == pytest.approx(second.ratio.value - first.ratio.value)
    assert change[1].ratio.low > 0
    assert preference_change({0: before}, {0: planted(1, 0)}, tokens, bootstrap=BOOTSTRAP)[0].ratio is None
    with pytest.raises(ValueError, match=r"layers \[0\] before and \[1\] after"):
        preference_change({0: before}, {1: after}, tokens)


def test_intervals_cover_what_they_say(pairs: WordPairs, tokens: TokenPairs) -> None:
    """100 lexicons at once, one per 'layer': words that are alike by themselves, and pairs that are."""
    from brainlit.downstream.preference import CONTRASTS, _contrasts, _ratio, _scores

    rng = np.random.default_rng(1)
    few, n_sets = tokens.pairs, 100
    truth = np.asarray([0.2, 0.4, 0.0])
    word = 0.05 * rng.standard_normal((len(few.words), n_sets))
    table = truth[few.kind][:, None] + word[few.first] + word[few.second]
    table = table + 0.2 * rng.standard_normal(table.shape)
    estimates, replicates = _contrasts(table, few, BOOTSTRAP)
    scores = _scores(estimates, replicates, BOOTSTRAP)
    for name, right in zip(CONTRASTS, (0.2, 0.4, -0.2), strict=True):
        assert 90 <= sum(one[name].low <= right <= one[name].high for one in scores) <= 99
    ratios = [_ratio(estimates[:, k], replicates[:, :, k], BOOTSTRAP) for k in range(n_sets)]
    assert 90 <= sum(ratio is not None and ratio.low <= 0.5 <= ratio.high for ratio in ratios) <= 99


def test_results_are_plain_and_repeatable(tokens: TokenPairs) -> None:
    values = planted(0.5, 0.5)
    assert one(values, tokens) == one(values, tokens)
    other = preference({3: values}, tokens, bootstrap=BootstrapConfig(n_boot=300, seed=1))[0]
    assert other.semantic.value == one(values, tokens).semantic.value
    assert other.semantic != one(values, tokens).semantic
    assert other.ratio.low < other.ratio.value < other.ratio.high
    assert "of phonetic likeness" in other.words()


def test_voices_that_lack_leave_a_pair_out(pairs: WordPairs) -> None:
    words = list(lexicon()[0])
    alone = pair_tokens(words, [""] * len(words), pairs)
    assert alone.voices == "same"
    assert len(alone.pairs) == len(pairs)
    doubled = words + words
    speakers = ["a"] * len(words) + ["b" if word in words[:50] else "a" for word in words]
    some = pair_tokens(doubled, speakers, pairs)
    assert 0 < sum(some.left_out.values()) == len(pairs) - len(some.pairs)
    assert len(pair_tokens(doubled, speakers, pairs, voices="same").pairs) == len(pairs)
    with pytest.raises(ValueError, match="need 5 of each"):
        pair_tokens(words[:3], [""] * 3, pairs)
    with pytest.raises(ValueError, match="need one speaker for each word"):
        pair_tokens(words, [], pairs)


def test_vectors_must_be_those_of_the_tokens(tokens: TokenPairs) -> None:
    with pytest.raises(ValueError, match=f"for {tokens.n_tokens} tokens"):
        preference({0: np.zeros((3, 4))}, tokens)
    assert one(np.ones((tokens.n_tokens, 4)), tokens).semantic.high == 0
