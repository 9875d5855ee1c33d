"""The roles of a store's stories, with one sound under two names found out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from brainlit.encoding.roles import Roles, make_roles
from brainlit.store import StoryStore


def settle_roles(
    store: StoryStore, asked: Mapping[str, Sequence[str]], purge_trs: int, allow: Sequence[str] = ()
) -> Roles:
    """The roles that are asked for, checked against the stories of the store.

    Raises
    ------
    LeakError, ValueError
        See `make_roles`.
    """
    n_trs_of = {story: store.n_trs(story) for story in store.story_names}
    return make_roles(asked, n_trs_of, purge_trs, allow, same_length_sounds(store))


def same_length_sounds(store: StoryStore) -> dict[str, str]:
    """SHA-256 of the samples of every story that is as long as another one: only these can be the same sound."""
    n_samples = {story: store.n_samples(story) for story in store.story_names}
    shared = {n for n, n_stories in Counter(n_samples.values()).items() if n_stories > 1}
    return {story: sound_hash(store, story, shared) for story, n in n_samples.items() if n in shared}


def sound_hash(store: StoryStore, story: str, lengths: Collection[int]) -> str:
    """SHA-256 of a story's samples if it is as long as one of `lengths`; else its length, which tells it from them."""
    n_samples = store.n_samples(story)
    if n_samples not in lengths:
        return f"{n_samples} samples"
    return hashlib.sha256(store.audio(story, 0, n_samples).tobytes()).hexdigest()
