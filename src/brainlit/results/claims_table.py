"""Findings as text: a Markdown table with plain sentences, JSON, and the place in a page where the table belongs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from brainlit.results.claims import TOPICS
from brainlit.results.effects import Evidence
from brainlit.results.findings import Finding
from brainlit.results.run_directory import write_text_atomic
from brainlit.results.verdicts import CANNOT_TELL, NOT_SUPPORTED, SUPPORTED, smallest_p

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
