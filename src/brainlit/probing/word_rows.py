"""Scored rows by the words that they rest on: words that tuning heard, and words that it never heard.

A model that looked up in tuning how the brain answers to each word form knows nothing of words that were not in the
tuning stories. Where the response rests on such words alone, it has nothing to go by, and a model of meaning has. So
alignment is reported on these rows too.

How much a word counts at a row is the absolute value of the haemodynamic response at the row's time, from the middle of
the word on: its share of what content words contribute. Half of it would not do: neighbouring words tell the topic, and
a look-up then has an r of .1 to .3 with noise-free responses; with LEAST_NEW it is near 0 (docs/calibration.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from brainlit.downstream.word_lists import stems
from brainlit.encoding.arrays import BoolArray, FloatArray
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.row_sets import LEAST_BLOCKS, row_set_scores
from brainlit.encoding.temporal import HaemodynamicResponse
from brainlit.features.content_words import content_mask, is_function_word, word_form
from brainlit.probing.temporal_rows import read_times_s
from brainlit.results.scores import FITTED_WORDS, SEEN_WORDS, UNFITTED_WORDS, UNSEEN_WORDS, ScoreRow
from brainlit.splits import Span
from brainlit.store import StoryStore

if TYPE_CHECKING:
    from brainlit.datamodules import StoryDataModule

LEAST_NEW = 0.8
"""Share of the content words' weight that rows of unseen words have from them, at least."""
LEAST_HEARD = 0.9
"""The same for rows of words that were heard."""
LEAST_REACH = 0.1
"""Rows whose words weigh less together than so much of one word at the peak of its response belong to no set."""
METRICS = {"tune": (UNSEEN_WORDS, SEEN_WORDS), "fit": (UNFITTED_WORDS, FITTED_WORDS)}
"""By role: the numbers of rows of words that its stories do not have, and of words that they have."""


@dataclass(frozen=True)
class HeardWords:
    """The words of some stretches of stories, content words or not."""

    forms: frozenset[str]

    @classmethod
    def of(cls, labels: Iterable[str]) -> HeardWords:
        """Of words as they are written in transcripts."""
        return cls(frozenset(form for label in labels if (form := word_form(label))))

    @cached_property
    def _stems(self) -> frozenset[str]:
        """Of content words: 'should' is no relative of 'shoulder'."""
        return frozenset(stem for form in self.forms if not is_function_word(form) for stem in stems(form))

    def has(self, form: str) -> bool:
        """Whether the form itself was heard."""
        return form in self.forms

    def lacks(self, form: str) -> bool:
        """Whether neither the form nor one with another regular ending was heard: 'dogs' is not new after 'dog'."""
        return form not in self.forms and self._stems.isdisjoint(stems(form))


def tuning_words(datamodule: StoryDataModule, spans: Sequence[Span] | None = None) -> HeardWords | None:
    """The words that a model hears when it is tuned on these data; None where there are no stories to tune on.

    Parameters
    ----------
    spans : sequence of Span, optional
        What it is tuned on; those of the role `tune` by default.
    """
    tuned = datamodule.roles.spans("tune") if spans is None else spans
    return heard_words(datamodule.store, tuned, datamodule.window.purge_trs(datamodule.tr_s, 0))


def heard_words(store: StoryStore, spans: Sequence[Span], reach_trs: int = 0) -> HeardWords | None:
    """Every word that sounds, at least in part, in some spans; None without spans.

    Parameters
    ----------
    reach_trs : int
        Rows beside a span that count as heard with it: what windows reach over (their context, and a shift).
    """
    labels: list[str] = []
    for story in dict.fromkeys(span.story for span in spans):
        words, clock = store.words(story), store.timebase(story)
        heard = np.zeros(len(words), dtype=bool)
        for span in (span for span in spans if span.story == story):
            first, last = span.start_tr - reach_trs, span.stop_tr - 1 + reach_trs
            start_s = clock.tr_starts_s[first] if first > 0 else -np.inf
            stop_s = clock.tr_ends_s[last] if last < clock.n_trs - 1 else np.inf
            heard |= (words.end_s > start_s) & (words.start_s < stop_s)
        labels += [words.labels[k] for k in np.flatnonzero(heard)]
    return HeardWords.of(labels) if spans else None


@dataclass(frozen=True, eq=False)
class WordRows:
    """Sets of the scored rows, by the number that is reported on them.

    Parameters
    ----------
    rows : mapping of metric to bool array of shape (n_score_trs,)
    n_words : mapping of metric to int
        How many different content words of the scored rows are new, or were heard.
    n_content_words : int
        How many there are at all.
    """

    rows: Mapping[str, BoolArray] = field(default_factory=dict)
    n_words: Mapping[str, int] = field(default_factory=dict)
    n_content_words: int = 0

    def scores(
        self, result: ProbeResult, regions: Mapping[str, BoolArray], layer: int, bootstrap: Mapping[str, int]
    ) -> list[ScoreRow]:
        """Alignment of the backbone alone on each set, by region; none for sets of too few rows.

        Parameters
        ----------
        regions : mapping of name to bool array of shape (n_voxels,)
            From `regions_with_all`.
        bootstrap : mapping with block_trs, n_bootstraps and seed
        """
        factor = result.overlap_factor
        score = partial(row_set_scores, result.observed, result.predictions["backbone"], result.score_groups)
        return [
            ScoreRow(
                region, layer, metric, int(regions[region].sum()), found.stretched(factor) if factor > 1 else found
            )
            for metric, rows in self.rows.items()
            for region, found in score(rows, regions, **bootstrap).items()
        ]

    def facts(self, block_trs: int) -> dict[str, Any]:
        """What a record says of the sets, as plain JSON."""
        return {
            "n_content_words": self.n_content_words,
            "n_words": dict(self.n_words),
            "n_trs": {metric: int(rows.sum()) for metric, rows in self.rows.items()},
            "least_trs": LEAST_BLOCKS * block_trs,
        }


def word_rows(
    store: StoryStore,
    spans: Sequence[Span],
    heard: Mapping[str, HeardWords | None],
    response: HaemodynamicResponse,
    skip_trs: int,
) -> WordRows:
    """Sort the rows of scored spans by the words that they rest on.

    Parameters
    ----------
    spans : sequence of Span
        The scored spans that a subject heard, in the order of the probe's rows.
    heard : mapping of 'tune' or 'fit' to HeardWords
        The words of that role's stories; None where they are not known, which gives no sets.
    response : HaemodynamicResponse
        The canonical response of the probe.
    skip_trs : int
        First rows of every span that are not scored.
    """
    known = {role: words for role, words in heard.items() if words is not None}
    peak = float(response.at(np.arange(0.0, response.length_s, 0.1)).max())
    rows: dict[str, list[BoolArray]] = {metric: [] for role in known for metric in METRICS[role]}
    found: dict[str, set[str]] = {metric: set() for metric in rows}
    content: set[str] = set()
    for span in spans:
        forms, weights = _weighed(store, span, response, skip_trs)
        all_of_them, counted = weights.sum(axis=1), set(forms[weights.any(axis=0)])
        in_reach = all_of_them >= LEAST_REACH * peak
        content |= counted
        for role, words in known.items():
            sorts = ((words.lacks, LEAST_NEW), (words.has, LEAST_HEARD))
            for metric, (belongs, least) in zip(METRICS[role], sorts, strict=True):
                own = {form for form in counted if belongs(form)}
                mask = np.array([form in own for form in forms], dtype=bool)
                rows[metric].append(in_reach & (weights[:, mask].sum(axis=1) >= least * all_of_them))
                found[metric] |= own
    return WordRows(
        {metric: np.concatenate([np.zeros(0, dtype=bool), *parts]) for metric, parts in rows.items()},
        {metric: len(forms) for metric, forms in found.items()},
        len(content),
    )


def has_vector(store: StoryStore, story: str) -> BoolArray | None:
    """Which words of a story have a vector in every semantic space of words; None where no space says so.

    Such a space has events at the middles of the words; a word without a vector has zeros there.
    """
    middles_s = store.words(story).middle_s
    order = np.argsort(middles_s, kind="stable")
    known: BoolArray | None = None
    for space in store.feature_spaces(story):
        timed = store.timed(story, space.name) if space.kind == "semantic" else None
        if timed is None or timed.duration_s is not None or timed.times_s.shape != middles_s.shape:
            continue
        if np.allclose(timed.times_s, middles_s[order]):
            own = np.zeros(len(order), dtype=bool)
            own[order] = timed.values.any(axis=1)
            known = own if known is None else known & own
    return known


def _weighed(store: StoryStore, span: Span, response: HaemodynamicResponse, skip_trs: int) -> tuple[Any, FloatArray]:
    """Forms of a story's content words, (n_words,), and their weights at the rows of a span, (n_rows, n_words)."""
    words = store.words(span.story)
    is_content = content_mask(words.labels, has_vector(store, span.story))
    read_s = read_times_s(store, span.story)[span.start_tr : span.stop_tr][skip_trs:]
    forms = np.array([word_form(label) for label in words.labels], dtype=object)[is_content]
    return forms, np.abs(response.at(read_s[:, None] - words.middle_s[is_content][None, :]))
