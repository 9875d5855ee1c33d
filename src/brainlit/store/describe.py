"""What a store holds, in a table of a few rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brainlit.store.reader import StoryStore


def describe_store(path: Path | str) -> dict[str, Any]:
    """Numbers of a store as plain JSON values, in the order in which `description_text` shows them.

    Returns
    -------
    dict
        `name`, `stories`, `minutes` (of sound), `trs`, `tr_s`, `subjects`, `voxels` and `good_voxels` and
        `stories_heard`, `repeats` and `members` (of groups, by story) by subject, `feature_spaces` (name, kind,
        n_features, own_rate, source),
        `default_roles`, `sound_notes` (what was done to the sound, by story), `left_out` (with reasons), `facts`
        (clock, preprocessing, licence), `response_filter`, `slice_reference`, `disk_mb`, `settings`, `fingerprint`,
        `software`.
    """
    store = StoryStore.open(path)
    stories, subjects = store.index.stories, store.index.subjects
    n_bytes = sum(entry.n_bytes for entry in store.index.files)
    return {
        "name": store.name,
        "stories": len(stories),
        "minutes": round(sum(entry.n_samples / entry.sample_rate_hz for entry in stories.values()) / 60, 2),
        "trs": sum(entry.n_trs for entry in stories.values()),
        "tr_s": store.tr_s,
        "subjects": len(subjects),
        "voxels": {name: entry.n_voxels for name, entry in subjects.items()},
        "good_voxels": {name: entry.n_good_voxels for name, entry in subjects.items()},
        "stories_heard": {name: len(entry.stories) for name, entry in subjects.items()},
        "repeats": {name: dict(entry.repeats) for name, entry in subjects.items()},
        "members": {name: dict(entry.members) for name, entry in subjects.items() if entry.members},
        "feature_spaces": [
            {key: getattr(space, key) for key in ("name", "kind", "n_features", "own_rate", "source")}
            for space in store.feature_space_entries
        ],
        "default_roles": store.default_roles,
        "sound_notes": {
            name: [note["message"] for note in entry.sound_notes]
            for name, entry in stories.items()
            if entry.sound_notes
        },
        "left_out": store.left_out,
        "facts": store.facts,
        "response_filter": store.index.response_filter,
        "slice_reference": store.slice_reference,
        "disk_mb": round(n_bytes / 1e6, 2),
        "settings": store.settings,
        "fingerprint": store.fingerprint,
        "software": store.index.software,
    }


def description_text(description: dict[str, Any]) -> str:
    """The description as an aligned two-column table."""
    rows = [
        ("store", description["name"]),
        ("stories", str(description["stories"])),
        ("minutes", f"{description['minutes']:.1f}"),
        ("TRs", f"{description['trs']} of {description['tr_s']} s"),
        ("subjects", str(description["subjects"])),
        *(_subject_row(description, subject) for subject in description["voxels"]),
        *(
            (f"  {space['kind']}", f"{space['name']} ({space['n_features']}, {space['own_rate'] or 'per TR only'})")
            for space in description["feature_spaces"]
        ),
        *((f"  {role}", ", ".join(spans)) for role, spans in description["default_roles"].items()),
        ("disk", f"{description['disk_mb']:.1f} MB"),
        *((f"  {what}", words) for what, words in description["facts"].items()),
        ("  slice reference", f"{description['slice_reference']:g} of the TR"),
        *((f"  sound of {name}", " ".join(notes)) for name, notes in description["sound_notes"].items()),
        *((f"left out: {what}", reason) for what, reason in description["left_out"].items()),
    ]
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"{left:<{width}}  {right}" for left, right in rows)


def _subject_row(description: dict[str, Any], subject: str) -> tuple[str, str]:
    n_voxels, n_good = description["voxels"][subject], description["good_voxels"][subject]
    masked = f" ({n_voxels - n_good} masked)" if n_good < n_voxels else ""
    members = description["members"].get(subject, {})
    said = {story: f"{story} x {n}" for story, n in description["repeats"][subject].items()}
    said |= {story: f"{story}: mean of {len(names)} people" for story, names in members.items()}
    repeats = "".join(f", {words}" for words in said.values())
    return f"  {subject}", f"{n_voxels} voxels{masked}, {description['stories_heard'][subject]} stories{repeats}"
