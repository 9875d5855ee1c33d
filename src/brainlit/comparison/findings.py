"""What the runs say about each claim: its number over seeds, the verdict, and what a reader of it must know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainlit.comparison.claims import (
    CANNOT_TELL,
    CLAIMS,
    NOT_MEASURED,
    NOT_SUPPORTED,
    SHOWN,
    SMALLEST,
    SUPPORTED,
    TOPICS,
    TUNED,
    Claim,
    Verdict,
    is_beyond_zero,
    smallest_p,
    verdict,
)
from brainlit.comparison.effects import (
    PERMUTED,
    PRETRAINED,
    STIMULUS,
    Evidence,
    Key,
    Measured,
    SeedEvidence,
    over_seeds,
)
from brainlit.encoding.statistics import paired_sign_flip
from brainlit.results.run_directory import write_text_atomic


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


# --- claims_table
# Findings as text: a Markdown table with plain sentences, JSON, and the place in a page where the table belongs.


SCHEMA = 1
HEADS = ("claim", "number", "mean over seeds", "95 % interval", "n", "each seed [its own 95 % interval]", "verdict")
RULE = (
    "A seed is a whole experiment of its own: stories, voices, listeners, starting weights. The interval is that of the"
    " mean over seeds (Student's t, n - 1 degrees of freedom), one number per seed; permutations of a seed are averaged"
    " first. Supported: the interval lies beyond 0 in the claim's direction and reaches the smallest effect of interest"
    " (for 'no worse' and 'stays as it was': within the margin). Not supported: it lies wholly below the smallest"
    " effect of interest, or beyond 0 the other way. Else it cannot be told with this n. Without any effect a rise or"
    " fall is called supported in at most 2.5 % of experiments, claim by claim; nothing is corrected for the number of"
    " claims. Intervals of single seeds are over held-out time, clips or words; where seeds agree by chance, they keep"
    " the interval from being narrower than numbers so uncertain allow."
)


def claims_markdown(evidence: Evidence, found: Sequence[Finding]) -> str:
    """The claims table, what was not found in plain sentences, the rule, and what is missing."""
    models = evidence.models
    lines = [*_side_by_side(models, found), ""] if len(models) > 1 else []
    for model in models:
        own = [one for one in found if one.model == model]
        lines += [f"**{model}**, {_seeds_said(evidence, model)}", "", *_table(own), ""]
        lines += [*(f"- {sentence}" for sentence in (*plain_sentences(own), *note_sentences(own))), ""]
    lines += [f"How verdicts are made: {RULE} {power_sentence(evidence)}", ""]
    if evidence.missing:
        lines += ["Not there:", "", *(f"- {sentence}" for sentence in evidence.missing), ""]
    return "\n".join(lines).rstrip() + "\n"


def claims_json(evidence: Evidence, found: Sequence[Finding]) -> dict[str, Any]:
    """All findings with what they rest on, as plain values."""
    return {
        "schema": SCHEMA,
        "region": evidence.region,
        "runs": list(evidence.runs),
        "seeds": {model: [seed.seed for seed in evidence.of(model)] for model in evidence.models},
        "smallest_p": {model: smallest_p(len(evidence.of(model))) for model in evidence.models},
        "rule": RULE,
        "claims": [{"model": one.model, **one.json()} for one in found],
        "missing": list(evidence.missing),
    }


def plain_sentences(found: Sequence[Finding]) -> list[str]:
    """What did not come out as claimed, one sentence each."""
    sentences = []
    for one in found:
        if one.verdict == NOT_SUPPORTED:
            sentences.append(f"Not so: {one.text} ({number_said(one)}).")
        elif one.verdict == CANNOT_TELL:
            sentences.append(f"Cannot be told: {one.text} ({number_said(one)}).")
    return sentences


def note_sentences(found: Sequence[Finding]) -> list[str]:
    """The notes of all findings, and what to run for those that were not measured, each with its claims."""
    lines: dict[str, list[str]] = {}
    for one in found:
        for note in one.notes:
            lines.setdefault(note, []).append(one.text)
    return [f"{note} ({'; '.join(texts)})" for note, texts in lines.items()]


def number_said(one: Finding) -> str:
    """Number, interval, n and the smallest effect of interest in words."""
    number, smallest = one.claim.number, f"smallest effect of interest {one.claim.smallest:g}"
    seeds = f"{one.n} seed{'s' if one.n != 1 else ''}"
    interval = "" if one.low is None else f", 95 % interval {number(one.low)} to {number(one.high)}"
    return f"{number(one.mean)}{interval}, {seeds}, {smallest}"


def power_sentence(evidence: Evidence) -> str:
    """The smallest p that tests of signs or ranks could give with so many seeds."""
    numbers = sorted({len(evidence.of(model)) for model in evidence.models})
    said = "; ".join(f"{n} seed{'s' if n != 1 else ''}: p {smallest_p(n):.3g}" for n in numbers)
    return (
        f"A two-sided sign-flip test or Wilcoxon's test cannot give less than 2 / 2^n ({said}), so neither decides; the"
        " t interval takes seeds to scatter normally."
    )


def replace_between(path: Path, name: str, text: str) -> Path:
    """Put text between <!-- name:begin --> and <!-- name:end -->, in place of what is there.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it does not have each marker once, in this order.
    """
    before, after = around_markers(path, name)
    return write_text_atomic(path, f"{before}\n{text.strip()}\n{after}")


def around_markers(path: Path, name: str) -> tuple[str, str]:
    """What stands up to the first marker and from the second one on; errors are those of `replace_between`."""
    whole = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(begin) > whole.index(end):
        raise ValueError(
            f"{path} needs the lines {begin} and {end} once each, in this order; what is between them is replaced."
        )
    return whole[: whole.index(begin) + len(begin)], whole[whole.index(end) :]


def _side_by_side(models: Sequence[str], found: Sequence[Finding]) -> Iterable[str]:
    """One row per claim, one column per model: number and verdict."""
    yield f"| claim | {' | '.join(models)} |"
    yield "|---" * (len(models) + 1) + "|"
    by_claim: dict[str, list[Finding]] = {}
    for one in found:
        by_claim.setdefault(one.text, []).append(one)
    for row in by_claim.values():
        cells = [one.verdict if one.mean is None else f"{one.claim.number(one.mean)} {one.verdict}" for one in row]
        yield f"| {row[0].text} | {' | '.join(cells)} |"


def _table(found: Sequence[Finding]) -> Iterable[str]:
    yield f"| {' | '.join(HEADS)} |"
    yield "|---" * len(HEADS) + "|"
    topic = ""
    for one in found:
        if one.claim.topic != topic:
            topic = one.claim.topic
            yield f"| **{TOPICS[topic]}** |" + " |" * (len(HEADS) - 1)
        yield f"| {' | '.join(row_cells(one))} |"


def row_cells(one: Finding) -> list[str]:
    """The cells of HEADS as plain text."""
    number = one.claim.number
    interval = "-" if one.low is None else f"{number(one.low)} to {number(one.high)}"
    seeds = "; ".join(
        f"{seed}: {number(own.value)}" + ("" if own.low is None else f" [{number(own.low)}, {number(own.high)}]")
        for seed, own in one.seeds.items()
    )
    said = f"**{one.verdict}**" if one.verdict == SUPPORTED else one.verdict
    metric = f"{one.claim.metric} ({one.claim.smallest:g})" if one.claim.kind != "shown" else one.claim.metric
    return [f"{one.text} ({one.claim.source})", metric, number(one.mean), interval, str(one.n), seeds or "-", said]


def _seeds_said(evidence: Evidence, model: str) -> str:
    seeds = evidence.of(model)
    which = ", ".join(str(seed.seed) for seed in seeds)
    return (
        f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''} ({which}); {evidence.place}; in brackets after a"
        " number its smallest effect of interest"
    )
