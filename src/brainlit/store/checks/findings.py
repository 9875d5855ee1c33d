"""What a check can find: the kinds of findings, and findings as text for people and JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

Level = Literal["error", "warning", "info"]
_LEVELS: tuple[Level, ...] = ("error", "warning", "info")
Scope = Literal["files", "stories", "spaces", "subjects", "responses", "parts"]

KINDS: dict[str, Scope] = {
    "missing_file": "files",
    "wrong_size": "files",
    "changed_bytes": "files",
    "length_mismatch": "parts",
    "silent_sound": "stories",
    "clipped_sound": "stories",
    "twin_sounds": "stories",
    "twin_transcripts": "stories",
    "sound_goes_on": "stories",
    "sound_ends_early": "stories",
    "rows_before_sound": "stories",
    "clock_drift": "stories",
    "words_outside": "stories",
    "speech_rate": "stories",
    "wrong_sample_rate": "stories",
    "words_shifted": "stories",
    "words_drift": "stories",
    "low_coverage": "spaces",
    "constant_space": "spaces",
    "no_usable_voxel": "subjects",
    "masked_voxels": "subjects",
    "empty_region": "parts",
    "equal_regions": "parts",
    "constant_responses": "responses",
    "infinite_values": "responses",
    "not_zscored": "responses",
    "copied_repeats": "responses",
    "twin_subjects": "subjects",
    "twin_responses": "subjects",
    "response_lag": "parts",
    "no_response": "parts",
    "left_out": "parts",
}
"""Every kind of finding, in the order in which they are told, and what it is counted in ('parts': of several sorts)."""

_N_EXAMPLES, _N_NAMES = 3, 12


@dataclass(frozen=True)
class Finding:
    """One thing that `check_store` noticed.

    Parameters
    ----------
    level : 'error', 'warning' or 'info'
        Errors make results wrong; warnings need a look; information is counted and harmless.
    kind : str
        One of `KINDS`; does not change when the wording does. docs/data_check.md explains each.
    where : str
        File, story, subject, subject/story, story/space or subject/region.
    n_checked : int
        How many such places the store has; 0 where they are not counted.
    """

    level: Level
    kind: str
    where: str
    message: str
    cure: str
    n_checked: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is no kind of finding; add it to KINDS and to docs/data_check.md.")


def counted(findings: Iterable[Finding], sizes: Mapping[str, int]) -> list[Finding]:
    """The findings in the order of levels and kinds, each with the number of places that its check looked at."""
    kinds = list(KINDS)
    filled = [replace(finding, n_checked=sizes.get(KINDS[finding.kind], 0)) for finding in findings]
    return sorted(filled, key=lambda finding: (_LEVELS.index(finding.level), kinds.index(finding.kind)))


def findings_text(findings: Sequence[Finding]) -> str:
    """The findings for people: those of one kind together, with three examples, and a count at the end."""
    if not findings:
        return "The store is in order."
    groups: dict[tuple[Level, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.level, finding.kind), []).append(finding)
    lines = [line for group in groups.values() for line in _group_lines(group)]
    n_of = {level: sum(finding.level == level for finding in findings) for level in _LEVELS}
    counts = [f"{n} {level}{'s' if n > 1 and level != 'info' else ''}" for level, n in n_of.items() if n]
    return "\n".join([*lines, f"{', '.join(counts)}. docs/data_check.md says what each means."])


def findings_json(findings: Sequence[Finding]) -> str:
    """The findings as a JSON list, for programs."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def exit_code(findings: Iterable[Finding]) -> int:
    """1 if there is an error among the findings, else 0."""
    return int(any(finding.level == "error" for finding in findings))


def _group_lines(group: Sequence[Finding]) -> Iterator[str]:
    first, margin = group[0], " " * 8
    if len(group) == 1:
        yield f"{first.level.upper():7} {first.where}: {first.message} [{first.kind}]"
    else:
        among = f"{len(group)} of {first.n_checked} {KINDS[first.kind]}" if first.n_checked else f"{len(group)}"
        yield f"{first.level.upper():7} [{first.kind}] {among}:"
        yield from (f"{margin}{finding.where}: {finding.message}" for finding in group[:_N_EXAMPLES])
        rest = [finding.where for finding in group[_N_EXAMPLES:]]
        if rest:
            more = ", ..." if len(rest) > _N_NAMES else ""
            yield f"{margin}and {len(rest)} more: {', '.join(rest[:_N_NAMES])}{more}"
    yield f"{margin}{first.cure}"
