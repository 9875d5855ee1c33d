"""What the runs say about each claim: its number over seeds, the verdict, and what a reader of it must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brainlit.encoding.paired import paired_sign_flip
from brainlit.results.claims import CLAIMS, SMALLEST, TUNED, Claim
from brainlit.results.effects import PERMUTED, PRETRAINED, STIMULUS, Evidence, Key, Measured, SeedEvidence, over_seeds
from brainlit.results.verdicts import NOT_MEASURED, SHOWN, Verdict, is_beyond_zero, verdict


@dataclass(frozen=True)
class Finding:
    """What the runs say about a claim.

    Parameters
    ----------
    place : str
        The compared region in words.
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
    place: str
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
        return self.claim.text.format(place=self.place)

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
        return Finding(claim, model, evidence.place, {}, *nothing, NOT_MEASURED, (_what_to_run(claim, seeds),))
    mean, low, high = over_seeds(list(found.values()))
    p = float(paired_sign_flip([one.value for one in found.values()]).p) if len(found) > 1 else None
    said = verdict(claim.kind, claim.smallest, low, high)
    notes = [*_own_notes(claim, low, high, found, len(seeds)), *_control_notes(claim, key, seeds)]
    return Finding(claim, model, evidence.place, found, mean, low, high, p, said, tuple(notes))


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
        values = list(_measured(seeds, (regime, PRETRAINED), key).values())
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
