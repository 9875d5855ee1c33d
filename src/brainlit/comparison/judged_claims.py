"""What the runs say about each claim: its number over seeds, the verdict, and what a reader of it must know; as text.

The text is a Markdown table with plain sentences, JSON, and what stands between two markers of a page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from brainlit.comparison import claims
from brainlit.comparison.effects import (
    ALIGNMENT,
    PERMUTED,
    PLANTED_NULLS,
    PRETRAINED,
    REGION,
    STIMULUS,
    WORDS,
    Evidence,
    Key,
    SeedEvidence,
    mean_gap,
    mean_over_seeds,
    share_data,
)
from brainlit.comparison.headline import effect_sentences
from brainlit.encoding.difference_tests import paired_sign_flip
from brainlit.encoding.statistics import Score
from brainlit.results.run_directory import write_text_atomic
from brainlit.results.tables import count_said, markdown_table

SCHEMA = 1
HEADS = ("claim", "number", "mean over seeds", "95 % interval", "n", "each seed [its own 95 % interval]", "verdict")
RULE = (
    "One number per seed; permutations of a seed are averaged first, and so are subjects. Where each seed draws"
    " listeners and stories (or clips, or words) of its own, a seed is a whole experiment, and the interval is that of"
    " the mean over seeds (Student's t, n - 1 degrees of freedom); where seeds agree by chance, their own intervals"
    " keep it from being narrower than numbers so uncertain allow. Where seeds share listeners and stories, as on real"
    " data, they are not independent: the squares of three half widths add up, that over seeds, the mean one over"
    " held-out time (or clips), which does not shrink with the number of seeds, and from two subjects up that over"
    " subjects (Student's t each). Supported: the interval lies beyond 0 in the claim's direction and reaches the"
    " smallest effect of interest (for 'no worse' and 'stays as it was': within the margin). Not supported: it lies"
    " wholly below the smallest effect of interest, or beyond 0 the other way. Else it cannot be told with this n."
    " Without any effect a rise or fall is called supported in at most 2.5 % of experiments, claim by claim; nothing is"
    " corrected for the number of claims."
)
ONE_SEED = "One seed: its own interval says nothing about another experiment, so there is no verdict."
NO_INTERVAL = (
    "Seeds share what they are scored on, and not every one has an interval over it: what they have in common cannot be"
    " counted, so there is no verdict."
)
WITHDRAWABLE = "low level"
"""Topic whose claims are checked against the planted nulls."""


@dataclass(frozen=True)
class JudgedClaim:
    """What the runs say about a claim.

    Parameters
    ----------
    place : str
        The compared region in words.
    seeds : mapping of seed to Score
        The seeds that have the number; n is how many they are.
    mean : Score or None
        Over seeds; None where no seed has the number.
    sign_flip_p : float or None
        Exact two-sided sign-flip test over seeds; shown, it decides nothing.
    notes : tuple of str
        What a reader of the verdict must know, in sentences.
    permutations : mapping of seed to tuple of float
        The number for each permutation of the control; empty where there are not several.
    shared : bool
        Whether the seeds are scored on the same listeners and stories, clips or words.
    """

    claim: claims.Claim
    model: str
    place: str
    seeds: Mapping[int, Score]
    mean: Score | None
    sign_flip_p: float | None
    verdict: claims.Verdict
    notes: tuple[str, ...] = ()
    permutations: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    shared: bool = False

    @property
    def n(self) -> int:
        """Seeds that have the number."""
        return len(self.seeds)

    @property
    def text(self) -> str:
        """The claim with the name of the region."""
        return self.claim.text.format(place=self.place)

    @property
    def interval(self) -> tuple[float, float] | None:
        """That of the mean over seeds."""
        return None if self.mean is None else self.mean.interval

    def json(self) -> dict[str, Any]:
        """Plain values."""
        mean = {} if self.mean is None else self.mean.json()
        return {
            "topic": self.claim.topic,
            "claim": self.text,
            "source": self.claim.source,
            "metric": self.claim.metric,
            "kind": self.claim.kind,
            "between": list(self.claim.between),
            "smallest_effect": self.claim.smallest,
            "smallest_effect_reason": claims.SMALLEST[self.claim.unit][1],
            "should_be": self.claim.planted,
            "mean": mean.get("value"),
            "low": mean.get("low"),
            "high": mean.get("high"),
            "n_seeds": self.n,
            "rests_on": {} if self.mean is None else dict(self.mean.n_units),
            "seeds_share_data": self.shared,
            "sign_flip_p": self.sign_flip_p,
            "seeds": {
                str(seed): {**one.json(), "permutations": list(self.permutations[seed])}
                for seed, one in self.seeds.items()
            },
            "verdict": self.verdict,
            "notes": list(self.notes),
        }


def judge_claims(evidence: Evidence) -> list[JudgedClaim]:
    """What the runs say about every claim, model by model; about what was planted where listeners are simulated."""
    asked = (*claims.CLAIMS, *(claims.PLANTED if evidence.simulated else ()))
    found = [_judged(claim, evidence, model) for model in evidence.models for claim in asked]
    return [_beside_nulls(one, evidence) for one in found] if evidence.simulated else found


def _judged(claim: claims.Claim, evidence: Evidence, model: str) -> JudgedClaim:
    seeds = evidence.of(model)
    key = _key_of(claim, seeds)
    found = _measured(seeds, claim.between, key)
    if not found:
        missing = _what_to_run(claim, seeds)
        return JudgedClaim(claim, model, evidence.place, {}, None, None, claims.NOT_MEASURED, (missing,))
    draws = {seed.seed: seed.differences(*claim.between, key) for seed in seeds if seed.seed in found}
    permutations = {
        seed: tuple(one.value for one in several) if len(several) > 1 else () for seed, several in draws.items()
    }
    mean = mean_over_seeds(seeds, key, *claim.between)
    assert mean is not None
    shared = share_data([seed for seed in seeds if seed.seed in found], key)
    p = float(paired_sign_flip([one.value for one in found.values()]).p) if len(found) > 1 else None
    said = claims.verdict(claim.kind, claim.smallest, mean.interval)
    notes = [
        *_own_notes(claim, mean.interval, len(found), len(seeds)),
        *_permutation_notes(permutations.values()),
        *_control_notes(claim, key, seeds),
    ]
    return JudgedClaim(claim, model, evidence.place, found, mean, p, said, tuple(notes), permutations, shared)


def _key_of(claim: claims.Claim, seeds: Sequence[SeedEvidence]) -> Key:
    """The first of its keys that was measured."""
    return next((key for key in claim.keys if _measured(seeds, claim.between, key)), claim.keys[0])


def _beside_nulls(one: JudgedClaim, evidence: Evidence) -> JudgedClaim:
    """Withdrawn, or with a note, where the same number moves in voxels in which nothing of the kind can happen."""
    claim, seeds = one.claim, evidence.of(one.model)
    if claim.topic != WITHDRAWABLE or one.mean is None:
        return one
    key, notes, said = _key_of(claim, seeds), list(one.notes), one.verdict
    for region in PLANTED_NULLS:
        there = key._replace(where=region)
        null, gap = mean_over_seeds(seeds, there, *claim.between), mean_gap(seeds, key, there, *claim.between)
        if region == evidence.region or null is None or not claims.is_beyond_zero(claim.kind, null.interval):
            continue
        ends = None if gap is None else " to ".join(map(claim.number, (gap.low, gap.high)))
        left = "" if gap is None else f", {claim.number(gap.value)} ({ends})"
        notes.append(
            f"The same number {claim.kind} by {claim.number(abs(null.value)).lstrip('+')} ({claim.number(null.low)} to"
            f" {claim.number(null.high)}) in {region} voxels, where nothing of the kind can happen; what counts is the"
            f" difference{left}."
        )
        if said == claims.SUPPORTED == claims.verdict(claim.kind, claim.smallest, null.interval):
            said = claims.WITHDRAWN
    return replace(one, notes=tuple(notes), verdict=said)


def _measured(seeds: Sequence[SeedEvidence], between: tuple[str, str], key: Key) -> dict[int, Score]:
    pairs = {seed.seed: seed.difference(*between, key) for seed in seeds}
    return {seed: one for seed, one in pairs.items() if one is not None}


def _own_notes(claim: claims.Claim, interval: tuple[float, float] | None, n_found: int, n_seeds: int) -> Iterable[str]:
    if n_found < n_seeds:
        yield f"Measured in {n_found} of {n_seeds} seeds."
    if claim.kind != claims.SHOWN and interval is None:
        yield ONE_SEED if n_found == 1 else NO_INTERVAL
    small = interval is not None and max(map(abs, interval)) < claim.smallest
    if claim.kind in ("rises", "falls") and small and claims.is_beyond_zero(claim.kind, interval):
        yield f"There is an effect, smaller than the smallest that matters ({claim.smallest:g})."


def _permutation_notes(permutations: Iterable[tuple[float, ...]]) -> Iterable[str]:
    several = [draws for draws in permutations if draws]
    if several:
        spread = max(max(draws) - min(draws) for draws in several)
        n_draws = max(map(len, several))
        yield f"Permutations of one seed ({n_draws}) are averaged; they differ by {spread:.3f} at most."


def _control_notes(claim: claims.Claim, key: Key, seeds: Sequence[SeedEvidence]) -> Iterable[str]:
    """Controls that do what only brain-tuning is claimed to do."""
    if claim.kind not in ("rises", "falls") or claim.between != claims.TUNED or claim.planted is not None:
        return
    for regime, words in ((PERMUTED, "The permuted control"), (STIMULUS, "Stimulus tuning")):
        mean = mean_over_seeds(seeds, key, regime, PRETRAINED)
        if mean is not None and claims.is_beyond_zero(claim.kind, mean.interval):
            interval = f"{claim.number(mean.low)} to {claim.number(mean.high)}, {mean.n_units['seeds']} seeds"
            yield (
                f"{words} {claim.kind} too: {claim.number(mean.value)} ({interval}). What counts is the difference"
                " from it."
            )


def _what_to_run(claim: claims.Claim, seeds: Sequence[SeedEvidence]) -> str:
    """Why a number is missing, and the command that makes it."""
    lacking = [regime for regime in claim.between if not any(regime in seed.states for seed in seeds)]
    if lacking:
        commands = " and ".join(
            f"`brainlit fit -c DATA -c MODEL -c {regime} --seed_everything SEED`" for regime in lacking
        )
        return f"No run of regime {' or '.join(lacking)}; with the seeds of the others: {commands}."
    if not any(set(claim.between) <= set(seed.states) for seed in seeds):
        return f"No seed has both {' and '.join(claim.between)}; train both with the same seed."
    if claim.topic in ("downstream", "preference"):
        return "`brainlit downstream RUN` for the runs of both regimes measures it."
    regions = {key.where for seed in seeds for states in seed.states.values() for state in states for key in state}
    if claim.topic == "planted" and claim.keys[0].where not in regions:
        return f"No voxels of these runs are called {claim.keys[0].where!r}: their listeners were made without them."
    if claim.topic == "planted" and claim.keys[0].where == REGION:
        return "No probe of these runs has enough scored rows that rest on words that tuning never heard."
    return "The probes of these runs do not have this number; probe with all layers and bands (--probe.layers all)."


# --- As text ---


def claims_markdown(evidence: Evidence, found: Sequence[JudgedClaim]) -> str:
    """What the listeners are, the effect, the claims table, what was not found in plain sentences, rule and gaps."""
    models = evidence.models
    lines = [f"**{evidence.listeners}**", ""] if evidence.listeners else []
    for sentence in effect_sentences(evidence):
        lines += [sentence, ""]
    lines += [*_side_by_side(models, found), ""] if len(models) > 1 else []
    for model in models:
        own = [one for one in found if one.model == model]
        lines += [f"**{model}**, {_seeds_said(evidence, model)}", "", *_table(own), ""]
        lines += [*(f"- {sentence}" for sentence in sentences(evidence, model, own)), ""]
    lines += [f"How verdicts are made: {RULE} {power_sentence(evidence)}", ""]
    if evidence.missing:
        lines += ["Not there:", "", *(f"- {sentence}" for sentence in evidence.missing), ""]
    return "\n".join(lines).rstrip() + "\n"


def claims_json(evidence: Evidence, found: Sequence[JudgedClaim]) -> dict[str, Any]:
    """All judged claims with what they rest on, as plain values."""
    return {
        "schema": SCHEMA,
        "region": evidence.region,
        "simulated": evidence.simulated,
        "runs": list(evidence.runs),
        "seeds": {model: [seed.seed for seed in evidence.of(model)] for model in evidence.models},
        "smallest_p": {model: claims.smallest_p(len(evidence.of(model))) for model in evidence.models},
        "rule": RULE,
        "claims": [{"model": one.model, **one.json()} for one in found],
        "missing": list(evidence.missing),
    }


def sentences(evidence: Evidence, model: str, own: Sequence[JudgedClaim]) -> list[str]:
    """What stands below the table of a model: counts, what did not come out, what is shared or planted, and notes."""
    return [
        *count_sentences(own),
        *plain_sentences(own),
        *planted_sentences(own),
        *shared_sentences(evidence, model),
        *evidence.fitted_on_tuned,
        *note_sentences(own),
    ]


def measured(found: Sequence[JudgedClaim]) -> list[JudgedClaim]:
    """Those that have a row: of the others `count_sentences` has a line."""
    return [one for one in found if one.verdict != claims.NOT_MEASURED]


def count_sentences(found: Sequence[JudgedClaim]) -> list[str]:
    """How many claims came out how, and in one line what was not measured, with what would measure it."""
    judged = measured(found)
    counts = Counter(one.verdict for one in judged)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in get_args(claims.Verdict) if counts[verdict])
    lines = [f"Of {count_said(len(judged), 'number')} measured: {said}."] if judged else []
    reasons: dict[str, list[str]] = {}
    for one in found:
        if one.verdict == claims.NOT_MEASURED:
            reasons.setdefault(" ".join(one.notes).rstrip("."), []).append(one.text)
    if reasons:
        listed = "; ".join(f"{', '.join(texts)} ({why})" for why, texts in reasons.items())
        lines.append(f"Not measured, {len(found) - len(judged)} of {len(found)}: {listed}.")
    return lines


def planted_sentences(found: Sequence[JudgedClaim]) -> list[str]:
    """Which of what was planted came out otherwise, and how many claims about it were answered."""
    known = [one for one in found if one.claim.planted is not None and one.verdict != claims.NOT_MEASURED]
    if not known:
        return []
    decided = [one for one in known if one.verdict in (claims.SUPPORTED, claims.NOT_SUPPORTED)]
    wrong = [one for one in decided if one.verdict != one.claim.planted]
    right, untold = len(decided) - len(wrong), len(known) - len(decided)
    counts = f"{right} of {len(known)} planted nulls came out as planted, {untold} cannot be told"
    if not wrong:
        return [f"{counts}, none contradicts what was planted."]
    said = "; ".join(
        f"{one.text}, should be {one.claim.planted} and is {one.verdict} ({number_said(one)})" for one in wrong
    )
    return [f"{counts}, {len(wrong)} contradict{'s' if len(wrong) == 1 else ''} what was planted: {said}."]


def shared_sentences(evidence: Evidence, model: str) -> list[str]:
    """What the seeds of a model are scored on together, so that seeds alone do not decide."""
    seeds = evidence.of(model)
    if len(seeds) < 2:
        return []
    keys = {"listeners and stories": [Key(ALIGNMENT, REGION)], "words": [Key("difference", WORDS)]}
    keys |= {f"the clips of {task}, {part}": [Key(task, part)] for task, part in evidence.tasks}
    shared = [what for what, some in keys.items() if any(_share(seeds, key) for key in some)]
    if not shared:
        return ["Each seed draws listeners, stories, clips and words of its own, as far as they were measured."]
    key = Key(ALIGNMENT, REGION)
    people = {name for seed in seeds for regime in seed.states for name in seed.people(regime, None, key)}
    alone = len(people) == 1 and "listeners and stories" in shared
    who = " There is one subject: nothing is shown about other people." if alone else ""
    return [f"Seeds share {', '.join(shared)}: intervals join seeds and what they share.{who}"]


def _share(seeds: Sequence[SeedEvidence], key: Key) -> bool:
    own = [seed for seed in seeds if any(seed.values(regime, key) for regime in seed.states)]
    return share_data(own, key)


def plain_sentences(found: Sequence[JudgedClaim]) -> list[str]:
    """What did not come out as claimed, one sentence each."""
    words = {
        claims.WITHDRAWN: "Withdrawn, for a planted null shows it too",
        claims.NOT_SUPPORTED: "Not so",
        claims.CANNOT_TELL: "Cannot be told",
    }
    found = [one for one in found if one.verdict != one.claim.planted]
    return [f"{words[one.verdict]}: {one.text} ({number_said(one)})." for one in found if one.verdict in words]


def note_sentences(found: Sequence[JudgedClaim]) -> list[str]:
    """The notes of all claims that were measured, each with its claims."""
    lines: dict[str, list[str]] = {}
    for one in measured(found):
        for note in one.notes:
            lines.setdefault(note, []).append(one.text)
    return [f"{note} ({'; '.join(texts)})" for note, texts in lines.items()]


def number_said(one: JudgedClaim) -> str:
    """Number, interval, n and the smallest effect of interest in words."""
    number, smallest = one.claim.number, f"smallest effect of interest {one.claim.smallest:g}"
    interval = "" if one.interval is None else ", 95 % interval {} to {}".format(*map(number, one.interval))
    return f"{_mean_said(one)}{interval}, {count_said(one.n, 'seed')}, {smallest}"


def power_sentence(evidence: Evidence) -> str:
    """The smallest p that tests of signs or ranks could give with so many seeds."""
    numbers = sorted({len(evidence.of(model)) for model in evidence.models})
    said = "; ".join(f"{count_said(n, 'seed')}: p {claims.smallest_p(n):.3g}" for n in numbers)
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


def _side_by_side(models: Sequence[str], found: Sequence[JudgedClaim]) -> list[str]:
    """One row per claim, one column per model: number and verdict."""
    by_claim: dict[str, list[JudgedClaim]] = {}
    for one in found:
        by_claim.setdefault(one.text, []).append(one)
    rows = [
        [text, *(one.verdict if one.mean is None else f"{_mean_said(one)} {one.verdict}" for one in row)]
        for text, row in by_claim.items()
        if measured(row)
    ]
    return markdown_table(["claim", *models], rows)


def _table(found: Sequence[JudgedClaim]) -> list[str]:
    rows = []
    for topic, own in by_topic(measured(found)).items():
        rows += [[f"**{topic}**", *[""] * (len(HEADS) - 1)], *map(row_cells, own)]
    return markdown_table(HEADS, rows)


def by_topic(found: Sequence[JudgedClaim]) -> dict[str, list[JudgedClaim]]:
    """The claims under the name of their topic, in the order of CLAIMS."""
    topics = dict.fromkeys(one.claim.topic for one in found)
    return {claims.TOPICS[topic]: [one for one in found if one.claim.topic == topic] for topic in topics}


def row_cells(one: JudgedClaim) -> list[str]:
    """The cells of HEADS as plain text."""
    number = one.claim.number
    interval = "-" if one.interval is None else "{} to {}".format(*map(number, one.interval))
    seeds = "; ".join(
        f"{seed}: {number(own.value)}" + ("" if own.interval is None else f" [{number(own.low)}, {number(own.high)}]")
        for seed, own in one.seeds.items()
    )
    said = f"**{one.verdict}**" if one.verdict == claims.SUPPORTED else one.verdict
    metric = f"{one.claim.metric} ({one.claim.smallest:g})" if one.claim.kind != "shown" else one.claim.metric
    planted = "" if one.claim.planted is None else f"; planted, should be: {one.claim.planted}"
    text = f"{one.text} ({one.claim.source}){planted}"
    return [text, metric, _mean_said(one), interval, str(one.n), seeds or "-", said]


def _mean_said(one: JudgedClaim) -> str:
    return one.claim.number(None if one.mean is None else one.mean.value)


def _seeds_said(evidence: Evidence, model: str) -> str:
    seeds = [seed.seed for seed in evidence.of(model)]
    return (
        f"{count_said(len(seeds), 'seed')} ({', '.join(map(str, seeds))}); {evidence.place}; in brackets after a"
        " number its smallest effect of interest"
    )
