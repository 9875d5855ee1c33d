"""The claims about brain-tuning: the number of each, which way it has to go, and the smallest effect of interest.

Nothing is chosen after looking: which number stands for a claim, in which layer and part, is written here. `verdicts`
has the rule by which they are judged, `findings` judges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brainlit.results.effects import (
    ALIGNMENT,
    AUDITORY,
    BRAIN,
    LANGUAGE_MODEL,
    LATE_MINUS_EARLY,
    PERMUTED,
    PRETRAINED,
    REGION,
    STIMULUS,
    WORDS,
    Key,
)
from brainlit.results.verdicts import Kind
from brainlit.results.word_evidence import RATIO, SEPARATION

TUNED, BEYOND_PERMUTED = (BRAIN, PRETRAINED), (BRAIN, PERMUTED)
PAPER, MULTI, LAYERS, CHOI = "arXiv 2410.09230", "arXiv 2510.21520", "arXiv 2506.03832", "arXiv 2406.08619"

SMALLEST: Mapping[str, tuple[float, str]] = {
    "r": (0.01, "a third of the 30 % that arXiv 2410.09230 reports, for voxels of r 0.1; less changes no conclusion"),
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
    """

    topic: str
    text: str
    source: str
    metric: str
    keys: tuple[Key, ...]
    unit: str
    kind: Kind = "rises"
    between: tuple[str, str] = TUNED

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
}

_R = "r: mean held-out correlation over voxels, compared layer"
_SHARE = "low-level share (R2_B + R2_L - R2_BL) / R2_B"
_IMPACT = "low-level impact 100 (r_B - r_rest) / r_B by banded ridge, in points of percent"
_PREFERENCE = "cosine of semantic pairs - cosine of near-homophones, centred, last layer"
_CATEGORY = "accuracy of a linear probe on eight categories, at the layer chosen on other clips"
_SEEN, _UNSEEN = Key("demo/word_category", "test"), Key("demo/word_category", "test_unseen_words")
_SEEN_WORDS, _UNSEEN_WORDS = "words that the probe learned", "words that the probe never saw"
_DOWNSTREAM = f"{PAPER}: downstream consistently better, except emotion"


def _task(text: str, *keys: Key, metric: str = "score of a linear probe") -> Claim:
    return Claim("downstream", text, _DOWNSTREAM, f"{metric}, tuned - before", keys, "score", "shown")


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "alignment",
        "alignment rises in {place}",
        f"{PAPER}: about 30 % higher in late language regions (wav2vec 2.0, HuBERT; Whisper not significantly)",
        f"{_R}; after - before",
        (Key(ALIGNMENT, REGION),),
        "r",
    ),
    Claim(
        "alignment",
        "alignment rises more than with permuted responses",
        f"{PAPER}: tuning on permuted responses hurts",
        f"{_R}; brain - permuted",
        (Key(ALIGNMENT, REGION),),
        "r",
        between=BEYOND_PERMUTED,
    ),
    Claim(
        "alignment",
        "alignment rises more than with the same sound and no brain",
        f"{MULTI}: stimulus-tuned is as pretrained",
        f"{_R}; brain - stimulus",
        (Key(ALIGNMENT, REGION),),
        "r",
        between=(BRAIN, STIMULUS),
    ),
    Claim(
        "alignment",
        "alignment after tuning on a text model's states instead: no claim of a gain",
        f"{PAPER}, {MULTI}: tuning on a language model as a comparison",
        f"{_R}; brain - language model",
        (Key(ALIGNMENT, REGION),),
        "r",
        "shown",
        (BRAIN, LANGUAGE_MODEL),
    ),
    Claim(
        "low level",
        "the low-level share falls in {place}",
        "ours, asked for by the reviews of arXiv 2311.04664: shared variance instead of residuals",
        f"{_SHARE}; after - before",
        (Key("low_level_share", REGION),),
        "share",
        "falls",
    ),
    Claim(
        "low level",
        "the low-level share falls more than with permuted responses",
        "ours",
        f"{_SHARE}; brain - permuted",
        (Key("low_level_share", REGION),),
        "share",
        "falls",
        BEYOND_PERMUTED,
    ),
    Claim(
        "low level",
        "the low-level impact falls in {place}",
        f"{PAPER}: lower in all three families (there by residuals)",
        f"{_IMPACT}; after - before",
        (Key("impact_banded_ridge", REGION),),
        "percent",
        "falls",
    ),
    Claim(
        "downstream",
        f"word category is read better, {_SEEN_WORDS}",
        _DOWNSTREAM,
        f"{_CATEGORY}; tuned - before",
        (_SEEN,),
        "score",
    ),
    Claim(
        "downstream",
        f"word category is read better than after permuted tuning, {_SEEN_WORDS}",
        "ours",
        f"{_CATEGORY}; brain - permuted",
        (_SEEN,),
        "score",
        between=BEYOND_PERMUTED,
    ),
    Claim(
        "downstream",
        f"word category is read better, {_UNSEEN_WORDS}",
        "ours: meaning beyond the words that the probe learned (the stories that were tuned on may have them)",
        f"{_CATEGORY}; tuned - before",
        (_UNSEEN,),
        "score",
    ),
    Claim(
        "downstream",
        f"word category is read better than after permuted tuning, {_UNSEEN_WORDS}",
        "ours",
        f"{_CATEGORY}; brain - permuted",
        (_UNSEEN,),
        "score",
        between=BEYOND_PERMUTED,
    ),
    Claim(
        "downstream",
        "phones are read no worse",
        f"{MULTI}: phonemes never below pretrained; {PAPER}: better",
        "macro-F1 of a linear probe on the phones of a clip; tuned - before",
        (Key("demo/phones", "test"), Key("timit/phones", "test")),
        "score",
        "not worse",
    ),
    _task("word identity", Key("demo/word_identity", "test"), Key("speech_commands", "test"), metric="accuracy"),
    _task(
        "sentence type, templates or sentences that train does not have",
        Key("demo/sentence_type", "test_unseen_templates"),
        Key("timit/sentence_type_without_sa", "test"),
    ),
    _task("speaker", Key("demo/speaker", "test"), metric="accuracy"),
    Claim(
        "preference",
        "meaning gains on sound in the last layer",
        f"{PAPER}, appendix C, after {CHOI}: published models prefer sound in every layer",
        f"{_PREFERENCE}; after - before",
        (Key("difference", WORDS),),
        "cosine",
    ),
    Claim(
        "preference",
        "meaning gains more on sound than with permuted responses",
        "ours",
        f"{_PREFERENCE}; brain - permuted",
        (Key("difference", WORDS),),
        "cosine",
        between=BEYOND_PERMUTED,
    ),
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
