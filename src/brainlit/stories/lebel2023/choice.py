"""Which stories and subjects of LeBel et al. 2023 are asked for, and which tune, fit, choose and score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from brainlit.stories.base import ROLES, SourceError
from brainlit.stories.lebel2023.facts import (
    CHOOSE_STORIES,
    HEARD,
    NO_STORY,
    PAPER_SUBJECTS,
    STORIES_27,
    STORIES_84,
    SUBJECTS,
    TEST_STORY,
    TRIMMED_VOLUMES,
    VOLUMES,
)
from brainlit.stories.published import chosen

Split = Literal["paper", "held_out_ceiling", "disjoint"]

GAP_TRS = 15
"""Rows between the half of the test story that chooses and the half that is scored: 30 s, more than windows and
delays reach over."""


def chosen_subjects(subjects: Sequence[str] | None) -> tuple[str, ...]:
    """The subjects asked for, the eight of the paper by default.

    Raises
    ------
    SourceError
        If there is none, or a name is unknown or doubled.
    """
    return PAPER_SUBJECTS if subjects is None else chosen("subject", subjects, SUBJECTS)


def chosen_stories(stories: str | int | Sequence[str]) -> tuple[str, ...]:
    """The stories asked for: '27', '84' or names.

    Raises
    ------
    SourceError
        If there is none, or a name is unknown or doubled.
    """
    if isinstance(stories, (str, int)):
        sets = {"27": STORIES_27, "84": STORIES_84}
        if str(stories) not in sets:
            raise SourceError(f"stories is {stories!r}; say '27', '84' or a list of names.")
        return sets[str(stories)]
    if NO_STORY in stories:
        raise SourceError(f"{NO_STORY!r} is a localiser and no story; leave it out of stories.")
    return chosen("story", stories, STORIES_84)


def roles_of(stories: Sequence[str], split: Split, subjects: Sequence[str]) -> dict[str, list[str]]:
    """Roles of some stories under a split.

    The paper (Moussa et al. 2025, arXiv 2410.09230) tunes and fits on 24 stories, chooses on two (its code names
    stagefright; life is the only other story that it leaves out) and scores wheretheressmoke.

    Raises
    ------
    SourceError
        If a role is left empty, or a subject is known to have heard none of a role's stories.
    """
    rest = [story for story in stories if story not in (*CHOOSE_STORIES, TEST_STORY)]
    choose = [story for story in CHOOSE_STORIES if story in stories]
    score = [TEST_STORY] if TEST_STORY in stories else []
    tune, fit = (rest[::2], rest[1::2]) if split == "disjoint" else (rest, rest)
    if split == "held_out_ceiling" and score:
        n_trs = VOLUMES[TEST_STORY] - TRIMMED_VOLUMES
        half = (n_trs - GAP_TRS) // 2
        choose = [*choose, f"{TEST_STORY}[0:{half}]"]
        score = [f"{TEST_STORY}[{half + GAP_TRS}:{n_trs}]"]
    roles = dict(zip(ROLES, (list(tune), list(fit), choose, score), strict=True))
    _require_all(roles, split, subjects)
    return roles


def _require_all(roles: dict[str, list[str]], split: Split, subjects: Sequence[str]) -> None:
    needs = {"choose": " or ".join(CHOOSE_STORIES), "score": TEST_STORY}
    cures = {role: f"Add {needs.get(role, 'more stories')} to stories, or take '27'." for role in roles}
    for role, spans in roles.items():
        if not spans:
            raise SourceError(f"the stories asked for leave no story to {role} under split {split!r}. {cures[role]}")
    for subject in subjects:
        heard = HEARD[subject]
        for role, spans in roles.items():
            if heard is not None and not any(span.partition("[")[0] in heard for span in spans):
                raise SourceError(
                    f"{subject} heard none of the stories that {role} ({', '.join(spans)}). {cures[role]}"
                )
