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
    **dict.fromkeys(("missing_file", "wrong_size", "changed_bytes"), "files"),
    "length_mismatch": "parts",
    **dict.fromkeys(("silent_sound", "clipped_sound", "scaled_sound", "soft_sound"), "stories"),
    **dict.fromkeys(("silent_channel", "strange_channels", "open_length"), "stories"),
    **dict.fromkeys(("twin_sounds", "twin_transcripts"), "stories"),
    **dict.fromkeys(("sound_goes_on", "sound_ends_early", "rows_before_sound", "clock_drift"), "stories"),
    **dict.fromkeys(("words_outside", "speech_rate", "wrong_sample_rate", "words_shifted", "words_drift"), "stories"),
    **dict.fromkeys(("low_coverage", "constant_space"), "spaces"),
    **dict.fromkeys(("no_usable_voxel", "masked_voxels"), "subjects"),
    **dict.fromkeys(("empty_region", "equal_regions"), "parts"),
    **dict.fromkeys(("constant_responses", "infinite_values", "not_zscored", "copied_repeats"), "responses"),
    **dict.fromkeys(("twin_subjects", "twin_responses"), "subjects"),
    **dict.fromkeys(("response_lag", "no_response", "between_members", "left_out"), "parts"),
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
