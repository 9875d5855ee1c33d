"""The claims about brain-tuning: the number of each, which way it has to go, and the smallest effect of interest.

Nothing is chosen after looking: which number stands for a claim, in which layer and part, is written here, with the
rule by which `judged_claims` judges it. Where a seed is a whole new experiment (stories, voices, listeners, starting
weights), a claim is judged by how much its number moves between seeds: mean and t interval with n - 1 degrees of
freedom, one number per seed. Where seeds share listeners and stories (real data), held-out time and subjects count too
(`effects.over_seeds`).

    kind        supported                not supported                                  else
    rises       interval above 0         interval below `smallest`                      cannot tell
    falls       interval below 0         interval above -`smallest`                     cannot tell
    not worse   interval above -margin   interval below -margin                         cannot tell
    unchanged   interval inside +-margin interval outside of it, on one side            cannot tell

`smallest` is the smallest effect of interest, fixed for each claim before looking. An interval wholly below it is
'not supported' also where it is above 0: there is an effect, and it is too small to matter. If there is no effect at
all, a claim of a rise or fall is called supported in at most 2.5 % of experiments. That of 'unchanged' needs a 95 %
interval inside the margin, which is stricter than the usual 90 % (two one-sided tests at 2.5 %).

Simulated listeners have voxels of which it is known what can happen in them. PLANTED are claims about these: what is
planted stands beside the verdict, and a claim that comes out where nothing can happen is withdrawn elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

from brainlit.comparison.effects import (
    ALIGNMENT,
    AUDITORY,
    BRAIN,
    BRAIN_ONLY,
    LANGUAGE_MODEL,
    LATE_MINUS_EARLY,
    NULL,
    PERMUTED,
    PLANTED_NULLS,
    PRETRAINED,
    REGION,
    STIMULUS,
    WORDS,
    Key,
)
from brainlit.comparison.evidence import RATIO, SEPARATION
from brainlit.results.scores import UNSEEN_WORDS

Kind: TypeAlias = Literal["rises", "falls", "not worse", "unchanged", "shown"]
Verdict: TypeAlias = Literal[
    "supported",
    "not supported",
    "cannot tell with this n",
    "not measured",
    "shown",
    "withdrawn: a planted null shows it too",
]

SUPPORTED: Verdict = "supported"
NOT_SUPPORTED: Verdict = "not supported"
CANNOT_TELL: Verdict = "cannot tell with this n"
NOT_MEASURED: Verdict = "not measured"
SHOWN: Verdict = "shown"
WITHDRAWN: Verdict = "withdrawn: a planted null shows it too"


def verdict(kind: Kind, smallest: float, interval: tuple[float, float] | None) -> Verdict:
    """The verdict on a number with its interval over seeds.

    Parameters
    ----------
    smallest : float
        Smallest effect of interest, or the margin; above 0.
    interval : (low, high), optional
        None with one seed: then nothing can be told.

    Raises
    ------
    ValueError
        If `smallest` is not above 0.

    >>> [verdict("rises", 0.01, interval) for interval in ((0.02, 0.08), (-0.03, 0.005), (-0.01, 0.05))]
    ['supported', 'not supported', 'cannot tell with this n']
    """
    if not smallest > 0:
        raise ValueError(f"the smallest effect of interest is {smallest}; it has to be above 0.")
    if kind == "shown":
        return SHOWN
    if interval is None:
        return CANNOT_TELL
    low, high = interval
    if kind == "unchanged":
        if -smallest < low and high < smallest:
            return SUPPORTED
        return NOT_SUPPORTED if low > smallest or high < -smallest else CANNOT_TELL
    if kind == "falls":
        low, high = -high, -low
    border, too_small = (-smallest, -smallest) if kind == "not worse" else (0.0, smallest)
    if high < too_small:
        return NOT_SUPPORTED
    return SUPPORTED if low > border else CANNOT_TELL


def is_beyond_zero(kind: Kind, interval: tuple[float, float] | None) -> bool:
    """Whether there is an interval, and it lies on the side of 0 that the claim is about."""
    return interval is not None and (interval[1] < 0 if kind == "falls" else interval[0] > 0)


def smallest_p(n_seeds: int) -> float:
    """The smallest two-sided p that a sign-flip test or Wilcoxon's signed-rank test can give: 2 / 2^n, at most 1.

    >>> smallest_p(5)
    0.0625
    """
    return min(1.0, 2.0 / 2.0**n_seeds)


TUNED, BEYOND_PERMUTED = (BRAIN, PRETRAINED), (BRAIN, PERMUTED)
PAPER, MULTI, LAYERS, CHOI = "arXiv 2410.09230", "arXiv 2510.21520", "arXiv 2506.03832", "arXiv 2406.08619"

SMALLEST: Mapping[str, tuple[float, str]] = {
    "r": (0.01, "a third of the 30 % that arXiv 2410.09230 reports, for voxels of r 0.1; less changes no conclusion"),
    "r2": (0.01, "a hundredth of the variance of a voxel's responses; what a probe's parts scatter by in the demo"),
    "share": (0.05, "a twentieth of what the model explains; a probe's share is not known better than that"),
    "percent": (5.0, "a twentieth of the alignment, as for the share"),
    "score": (0.02, "one clip in fifty; the standard error of some 500 clips"),
    "cosine": (0.02, "a hundredth of the range of cosines"),
    "ratio": (0.05, "a twentieth of the way from sound only (0) to as much meaning as sound (1)"),
}
"""Unit of a number -> its smallest effect of interest, and why."""
DIGITS = {"percent": 1}


@dataclass(frozen=True)
class Claim:
    """One claim.

    Parameters
    ----------
    topic : str
        One of TOPICS.
    text : str
        What is claimed; {place} stands for the compared voxels.
    source : str
        Who claims it, and what they found.
    metric : str
        The number in words, with its formula.
    keys : tuple of Key
        The first one that was measured counts: the demo's task, else the published one.
    unit : str
        Key of SMALLEST.
    kind : 'rises', 'falls', 'not worse', 'unchanged' or 'shown'
        'shown' is no claim of a gain and gets no verdict.
    between : (str, str)
        Regimes; the number of the first minus that of the second.
    planted : verdict, optional
        What it should be, where it is known.
    """

    topic: str
    text: str
    source: str
    metric: str
    keys: tuple[Key, ...]
    unit: str
    kind: Kind = "rises"
    between: tuple[str, str] = TUNED
    planted: Verdict | None = None

    @property
    def smallest(self) -> float:
        """Smallest effect of interest, or margin."""
        return SMALLEST[self.unit][0]

    def number(self, value: float | None) -> str:
        """With its sign and as many digits as the unit deserves."""
        return "-" if value is None else f"{value:+.{DIGITS.get(self.unit, 3)}f}"


TOPICS = {
    "alignment": "1 Alignment with the brain",
    "low level": "2 Low-level features",
    "downstream": "3 Downstream tasks",
    "preference": "4 Meaning or sound",
    "layers": "5 Layers and regions",
    "planted": "6 What was planted",
}


class _Number(NamedTuple):
    """What several claims are about, as in Claim; `formula` is the metric without what is subtracted from what."""

    topic: str
    formula: str
    keys: tuple[Key, ...]
    unit: str
    tuned: str = "after - before"

    def claim(self, text: str, source: str = "ours", kind: Kind = "rises", between: tuple[str, str] = TUNED) -> Claim:
        """A claim about this number."""
        change = self.tuned if between == TUNED else " - ".join(between).replace("_", " ")
        return Claim(self.topic, text, source, f"{self.formula}; {change}", self.keys, self.unit, kind, between)


def _task(text: str, *keys: Key, metric: str = "score of a linear probe") -> Claim:
    return Claim("downstream", text, _DOWNSTREAM, f"{metric}, tuned - before", keys, "score", "shown")


_R = "r: mean held-out correlation over voxels, compared layer"
_ALIGNMENT = _Number("alignment", _R, (Key(ALIGNMENT, REGION),), "r")
_SHARE = _Number(
    "low level", "low-level share (R2_B + R2_L - R2_BL) / R2_B", (Key("low_level_share", REGION),), "share"
)
_CATEGORY = "accuracy of a linear probe on eight categories, at the layer chosen on other clips"
_SEEN = _Number("downstream", _CATEGORY, (Key("demo/word_category", "test"),), "score", "tuned - before")
_UNSEEN = _SEEN._replace(keys=(Key("demo/word_category", "test_unseen_words"),))
_SEEN_WORDS, _UNSEEN_WORDS = "words that the probe learned", "words that the probe never saw"
_DOWNSTREAM = f"{PAPER}: downstream consistently better, except emotion"
_PREFERENCE = _Number(
    "preference",
    "cosine of semantic pairs - cosine of near-homophones, centred, last layer",
    (Key("difference", WORDS),),
    "cosine",
)

CLAIMS: tuple[Claim, ...] = (
    _ALIGNMENT.claim(
        "alignment rises in {place}",
        f"{PAPER}: about 30 % higher in late language regions (wav2vec 2.0, HuBERT; Whisper not significantly)",
    ),
    _ALIGNMENT.claim(
        "alignment rises more than with permuted responses",
        f"{PAPER}: tuning on permuted responses hurts",
        between=BEYOND_PERMUTED,
    ),
    _ALIGNMENT.claim(
        "alignment rises more than with the same sound and no brain",
        f"{MULTI}: stimulus-tuned is as pretrained",
        between=(BRAIN, STIMULUS),
    ),
    _ALIGNMENT.claim(
        "alignment after tuning on a text model's states instead: no claim of a gain",
        f"{PAPER}, {MULTI}: tuning on a language model as a comparison",
        "shown",
        (BRAIN, LANGUAGE_MODEL),
    ),
    _SHARE.claim(
        "the low-level share falls in {place}",
        "ours, asked for by the reviews of arXiv 2311.04664: shared variance instead of residuals",
        "falls",
    ),
    _SHARE.claim("the low-level share falls more than with permuted responses", kind="falls", between=BEYOND_PERMUTED),
    Claim(
        "low level",
        "the low-level impact falls in {place}",
        f"{PAPER}: lower in all three families (there by residuals)",
        "low-level impact 100 (r_B - r_rest) / r_B by banded ridge, in points of percent; after - before",
        (Key("impact_banded_ridge", REGION),),
        "percent",
        "falls",
    ),
    _SEEN.claim(f"word category is read better, {_SEEN_WORDS}", _DOWNSTREAM),
    _SEEN.claim(f"word category is read better than after permuted tuning, {_SEEN_WORDS}", between=BEYOND_PERMUTED),
    _UNSEEN.claim(
        f"word category is read better, {_UNSEEN_WORDS}",
        "ours: meaning beyond the words that the probe learned (the stories that were tuned on may have them)",
    ),
    _UNSEEN.claim(f"word category is read better than after permuted tuning, {_UNSEEN_WORDS}", between=BEYOND_PERMUTED),
    Claim(
        "downstream",
        "phones are read no worse",
        f"{MULTI}: phonemes never below pretrained; {PAPER}: better",
        "macro-F1 of a linear probe on the phones of a clip; tuned - before",
        (Key("demo/phones", "test"), Key("timit/phones", "test")),
        "score",
        "not worse",
    ),
    _task("word identity", Key("demo/word_identity", "test"), Key("speech_commands/word", "test"), metric="accuracy"),
    _task(
        "sentence type, templates or sentences that train does not have",
        Key("demo/sentence_type", "test_unseen_templates"),
        Key("timit/sentence_type_without_sa", "test"),
    ),
    _task("speaker", Key("demo/speaker", "test"), metric="accuracy"),
    _PREFERENCE.claim(
        "meaning gains on sound in the last layer",
        f"{PAPER}, appendix C, after {CHOI}: published models prefer sound in every layer",
    ),
    _PREFERENCE.claim("meaning gains more on sound than with permuted responses", between=BEYOND_PERMUTED),
    Claim(
        "preference",
        "the ratio of meaning to sound rises, where it is defined",
        f"after {CHOI}",
        "(semantic - random) / (near-homophone - random), centred cosines, last layer; after - before",
        (Key(RATIO, WORDS),),
        "ratio",
    ),
    Claim(
        "preference",
        "categories of words stand apart",
        "ours",
        "share of words nearest to the centre of their category, each left out of it, last layer; after - before",
        (Key(SEPARATION, WORDS),),
        "score",
        "shown",
    ),
    Claim(
        "layers",
        "the gain grows towards the last layers in {place}",
        f"{LAYERS}: bell-shaped over layers before tuning, rising to the last layer after it",
        "gain in r of the last layer - mean gain of the first third of the layers; each layer alone",
        (Key(LATE_MINUS_EARLY, REGION),),
        "r",
    ),
    Claim(
        "layers",
        "alignment with auditory voxels stays as it was",
        f"{PAPER}: no significant gain in A1; {MULTI}: auditory cortex slightly lower",
        f"{_R}; after - before in auditory voxels, within a margin",
        (Key(ALIGNMENT, AUDITORY),),
        "r",
        "unchanged",
    ),
)


def _planted_null(region: str) -> tuple[Claim, ...]:
    """The two numbers in which nothing can happen in such a region."""
    own = Claim(
        "planted",
        f"the model's own part stays as it was in {region} voxels, where it cannot grow",
        "ours: nothing semantic is planted there",
        "R2 of the backbone that neither low-level nor semantic features have; after - before, within a margin",
        (Key("partition_backbone", region),),
        "r2",
        "unchanged",
        planted=SUPPORTED,
    )
    share = _SHARE._replace(topic="planted", keys=(Key("low_level_share", region),))
    text = f"the low-level share falls in {region} voxels, where it cannot"
    falls = share.claim(text, "ours: nothing semantic is planted there", "falls")
    return own, replace(falls, planted=NOT_SUPPORTED)


_UNSEEN_R = _Number(
    "planted",
    "r on scored rows that rest on words that tuning never heard, compared layer",
    (Key(UNSEEN_WORDS, REGION),),
    "r",
)
PLANTED: tuple[Claim, ...] = (
    *(claim for region in PLANTED_NULLS for claim in _planted_null(region)),
    Claim(
        "planted",
        "alignment with null voxels stays as it was",
        "ours: they follow nothing",
        f"{_R}; after - before, within a margin",
        (Key(ALIGNMENT, NULL),),
        "r",
        "unchanged",
        planted=SUPPORTED,
    ),
    _ALIGNMENT._replace(topic="planted", keys=(Key(ALIGNMENT, BRAIN_ONLY),)).claim(
        "alignment rises more by brains than by a text model, where voxels follow a meaning that no text carries",
        "ours: what a brain is needed for",
        between=(BRAIN, LANGUAGE_MODEL),
    ),
    _UNSEEN_R.claim(
        "alignment rises in {place} on words that tuning never heard",
        "ours: a look-up of words that were heard cannot do it",
    ),
    _UNSEEN_R.claim(
        "alignment on words that tuning never heard rises more than with permuted responses", between=BEYOND_PERMUTED
    ),
)
"""Judged only where all listeners are simulated."""
