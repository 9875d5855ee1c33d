"""The claims about brain-tuning, each with its number, direction and smallest effect of interest, and what was found.

Nothing here is chosen after looking: which number stands for a claim, in which layer and part, which way it has to go
and how far, is written below. `verdicts` has the rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brainlit.encoding.paired import paired_sign_flip
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
    Evidence,
    Key,
    Measured,
    SeedEvidence,
    over_seeds,
)
from brainlit.results.verdicts import CANNOT_TELL, NOT_MEASURED, SHOWN, Kind, Verdict, is_beyond_zero, verdict
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
        What is claimed; {region} stands for the compared voxels.
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
_IMPACT = "low-level impact 100 (r_B - r_B|L) / r_B, banded ridge, in points of percent"
_PREFERENCE = "cosine of semantic pairs - cosine of near-homophones, centred, last layer"
_CATEGORY = "accuracy of a linear probe on the eight categories, at the layer chosen on other clips"
_SEEN, _UNSEEN = Key("demo/word_category", "test"), Key("demo/word_category", "test_unseen_words")
_SEEN_WORDS, _UNSEEN_WORDS = "of words that the probe has seen", "of words that the probe has not seen"
_DOWNSTREAM = f"{PAPER}: downstream consistently better, except emotion"


def _task(text: str, *keys: Key, metric: str = "score of a linear probe") -> Claim:
    return Claim("downstream", text, _DOWNSTREAM, f"{metric}, tuned - before", keys, "score", "shown")


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "alignment",
        "alignment rises in {region} voxels",
        f"{PAPER}: about 30 % higher in late language regions (wav2vec 2.0, HuBERT; Whisper not significantly)",
        f"{_R}; after - before",
        (Key(ALIGNMENT, REGION),),
        "r",
    ),
    Claim(
        "alignment",
        "it rises more than with permuted responses",
        f"{PAPER}: tuning on permuted responses hurts",
        f"{_R}; brain - permuted",
        (Key(ALIGNMENT, REGION),),
        "r",
        between=BEYOND_PERMUTED,
    ),
    Claim(
        "alignment",
        "it rises more than with the same sound and no brain",
        f"{PAPER}, {MULTI}: stimulus-tuned is as pretrained",
        f"{_R}; brain - stimulus",
        (Key(ALIGNMENT, REGION),),
        "r",
        between=(BRAIN, STIMULUS),
    ),
    Claim(
        "alignment",
        "what a text model's states do instead (no claim of a gain)",
        f"{PAPER}, {MULTI}: tuning on a language model as a comparison",
        f"{_R}; brain - language model",
        (Key(ALIGNMENT, REGION),),
        "r",
        "shown",
        (BRAIN, LANGUAGE_MODEL),
    ),
    Claim(
        "low level",
        "the low-level share falls in {region} voxels",
        "ours, asked for by the reviews of arXiv 2311.04664: shared variance instead of residuals",
        f"{_SHARE}; after - before",
        (Key("low_level_share", REGION),),
        "share",
        "falls",
    ),
    Claim(
        "low level",
        "it falls more than with permuted responses",
        "ours",
        f"{_SHARE}; brain - permuted",
        (Key("low_level_share", REGION),),
        "share",
        "falls",
        BEYOND_PERMUTED,
    ),
    Claim(
        "low level",
        "the low-level impact falls in {region} voxels",
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
        f"{_CATEGORY}, {_SEEN_WORDS}; tuned - before",
        (_SEEN,),
        "score",
    ),
    Claim(
        "downstream",
        "it is read better than after permuted tuning",
        "ours",
        f"{_CATEGORY}, {_SEEN_WORDS}; brain - permuted",
        (_SEEN,),
        "score",
        between=BEYOND_PERMUTED,
    ),
    Claim(
        "downstream",
        f"word category is read better, {_UNSEEN_WORDS}",
        "ours: meaning beyond the words that the probe learned (the stories that were tuned on may have them)",
        f"{_CATEGORY}, {_UNSEEN_WORDS}; tuned - before",
        (_UNSEEN,),
        "score",
    ),
    Claim(
        "downstream",
        f"it is read better than after permuted tuning, {_UNSEEN_WORDS}",
        "ours",
        f"{_CATEGORY}, {_UNSEEN_WORDS}; brain - permuted",
        (_UNSEEN,),
        "score",
        between=BEYOND_PERMUTED,
    ),
    Claim(
        "downstream",
        "phones are read no worse",
        f"{MULTI}: phonemes never below pretrained; {PAPER}: better",
        "macro-F1 of a linear probe on the phones of a clip; tuned - before",
        (Key("demo/phones", "test"), Key("timit_phones", "test")),
        "score",
        "not worse",
    ),
    _task("word identity", Key("demo/word_identity", "test"), Key("speech_commands", "test"), metric="accuracy"),
    _task(
        "sentence type, templates or sentences that train does not have",
        Key("demo/sentence_type", "test_unseen_templates"),
        Key("timit_sentence_type_without_sa", "test"),
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
        "it does so more than with permuted responses",
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
        "the gain grows towards the last layers in {region} voxels",
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


@dataclass(frozen=True)
class Finding:
    """What the runs say about a claim.

    Parameters
    ----------
    seeds : mapping of seed to Measured
        The seeds that have the number; n is how many they are.
    mean, low, high : float or None
        Over seeds; None where there are too few.
    sign_flip_p : float or None
        Exact two-sided sign-flip test over seeds; shown, it decides nothing.
    notes : tuple of str
        What a reader of the verdict must know, in sentences.
    """

    claim: Claim
    model: str
    region: str
    seeds: Mapping[int, Measured]
    mean: float | None
    low: float | None
    high: float | None
    sign_flip_p: float | None
    verdict: Verdict
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Seeds that have the number."""
        return len(self.seeds)

    @property
    def text(self) -> str:
        """The claim with the name of the region."""
        return self.claim.text.format(region=self.region.replace("_", " ").removesuffix(" voxels"))

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "topic": self.claim.topic,
            "claim": self.text,
            "source": self.claim.source,
            "metric": self.claim.metric,
            "kind": self.claim.kind,
            "between": list(self.claim.between),
            "smallest_effect": self.claim.smallest,
            "smallest_effect_reason": SMALLEST[self.claim.unit][1],
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "n_seeds": self.n,
            "sign_flip_p": self.sign_flip_p,
            "seeds": {
                str(seed): {"value": one.value, "low": one.low, "high": one.high, "permutations": list(one.draws)}
                for seed, one in self.seeds.items()
            },
            "verdict": self.verdict,
            "notes": list(self.notes),
        }


def findings(evidence: Evidence) -> list[Finding]:
    """What the runs say about every claim, model by model."""
    return [_finding(claim, evidence, model) for model in evidence.models for claim in CLAIMS]


def _finding(claim: Claim, evidence: Evidence, model: str) -> Finding:
    seeds = evidence.of(model)
    key = next((key for key in claim.keys if _measured(seeds, claim.between, key)), claim.keys[0])
    found = _measured(seeds, claim.between, key)
    if not found:
        nothing = (None, None, None, None)
        return Finding(claim, model, evidence.region, {}, *nothing, NOT_MEASURED, (_what_to_run(claim, seeds),))
    values = [one.value for one in found.values()]
    mean, low, high = over_seeds(values)
    p = float(paired_sign_flip(values).p) if len(values) > 1 else None
    said = verdict(claim.kind, claim.smallest, low, high)
    notes = [*_own_notes(claim, low, high, found, len(seeds)), *_control_notes(claim, key, seeds)]
    return Finding(claim, model, evidence.region, found, mean, low, high, p, said, tuple(notes))


def _measured(seeds: Sequence[SeedEvidence], between: tuple[str, str], key: Key) -> dict[int, Measured]:
    pairs = {seed.seed: seed.difference(*between, key) for seed in seeds}
    return {seed: one for seed, one in pairs.items() if one is not None}


def _own_notes(
    claim: Claim, low: float | None, high: float | None, found: Mapping[int, Measured], n_seeds: int
) -> list[str]:
    notes = []
    if len(found) < n_seeds:
        notes.append(f"Measured in {len(found)} of {n_seeds} seeds.")
    if claim.kind != SHOWN and low is None:
        notes.append("One seed: its own interval says nothing about another experiment, so there is no verdict.")
    small = low is not None and high is not None and max(abs(low), abs(high)) < claim.smallest
    if claim.kind in ("rises", "falls") and small and is_beyond_zero(claim.kind, low, high):
        notes.append(f"There is an effect, smaller than the smallest that matters ({claim.smallest:g}).")
    spreads = [max(one.draws) - min(one.draws) for one in found.values() if one.draws]
    if spreads:
        n_draws = max(len(one.draws) for one in found.values())
        notes.append(f"Permutations of one seed ({n_draws}) are averaged; they differ by {max(spreads):.3f} at most.")
    return notes


def _control_notes(claim: Claim, key: Key, seeds: Sequence[SeedEvidence]) -> list[str]:
    """Controls that do what only brain-tuning is claimed to do."""
    if claim.kind not in ("rises", "falls") or claim.between != TUNED:
        return []
    notes = []
    for regime, words in ((PERMUTED, "The permuted control"), (STIMULUS, "Stimulus tuning")):
        values = [one.value for one in _measured(seeds, (regime, PRETRAINED), key).values()]
        mean, low, high = over_seeds(values) if values else (0.0, None, None)
        if is_beyond_zero(claim.kind, low, high):
            interval = f"{claim.number(low)} to {claim.number(high)}, {len(values)} seeds"
            notes.append(
                f"{words} {claim.kind} too: {claim.number(mean)} ({interval}). What counts is the difference from it."
            )
    return notes


def _what_to_run(claim: Claim, seeds: Sequence[SeedEvidence]) -> str:
    """Why a number is missing, and the command that makes it."""
    lacking = [regime for regime in claim.between if not any(regime in seed.states for seed in seeds)]
    if lacking:
        commands = " and ".join(f"`make train REGIME={regime} SEED=...`" for regime in lacking)
        return f"No run of regime {' or '.join(lacking)}; with the seeds of the others: {commands}."
    if not any(set(claim.between) <= set(seed.states) for seed in seeds):
        return f"No seed has both {' and '.join(claim.between)}; train both with the same seed."
    if claim.topic in ("downstream", "preference"):
        return "`brainlit downstream RUN` for the runs of both regimes measures it."
    return "The probes of these runs do not have this number; probe with all layers and bands (probe.layers: all)."


def is_undecided(found: Finding) -> bool:
    """Whether more seeds could still decide."""
    return found.verdict == CANNOT_TELL
