"""Probes of other data than those that a run is tuned on: names, sounds that were tuned on, what the model can hear."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from brainlit.datamodules import StoryDataModule
from brainlit.datamodules.selection import sound_hash
from brainlit.results.record import tuned_facts
from brainlit.splits import refuse_tuned

_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_name(data: StoryDataModule | None, name: str | None) -> None:
    """Data of a probe's own need a name, which becomes a folder; the main probe has none.

    Raises
    ------
    ValueError
    """
    if data is None:
        if name is not None:
            raise ValueError(
                f"name is {name!r}, but the probe has no data of its own; give data, or leave the name out (the probe"
                " of the data that are tuned on has none)."
            )
    elif name is None:
        raise ValueError("a probe with data of its own needs a name, such as 'narratives': its folder under probes/.")
    elif not _FOLDER_NAME.fullmatch(name):
        raise ValueError(f"name is {name!r}, which is no folder name; use letters, digits, '.', '_' and '-'.")


def set_up(
    data: StoryDataModule, name: str, others: Iterable[str | None], tuned: StoryDataModule, backbone: Any
) -> None:
    """Prepare the data of a probe that has its own; `others` are the names of the other probes.

    Raises
    ------
    ValueError
        If another probe or a subject of the main probe has the name, so that their folders would be the same; or as
        `prepare`.
    LeakError
        As `refuse_same_sounds`.
    """
    if name in list(others):
        raise ValueError(f"two probes have the name {name!r}; give each data set that is probed a name of its own.")
    if name in list(tuned.probed_subjects):
        raise ValueError(
            f"a probe has the name {name!r}, which is a subject of the data that are tuned on, and probes/{name} is the"
            " folder of that subject. Give the probe another name."
        )
    prepare(data, name, backbone)
    refuse_same_sounds(data, tuned)


def prepare(data: StoryDataModule, name: str, backbone: Any) -> None:
    """Build or check the store, set the data up, and refuse what could not be probed, before anything is trained.

    Raises
    ------
    ValueError
        If there is no role to fit or score on, or the windows are longer than the backbone hears.
    """
    data.only_probe()
    data.prepare_data()
    data.setup()
    for role in ("fit", "score"):
        if not data.roles.spans(role):
            raise ValueError(
                f"the held-out data {name!r} have no stories to {role}; give the role {role} some in the probe's"
                " data.init_args.roles (tune is not used)."
            )
    if words := too_long_words(data, backbone):
        raise ValueError(
            f"the windows of the held-out data {name!r} are {words}; shorten window.n_trs or window.context_s in the"
            " probe's data.init_args."
        )


def too_long_words(data: StoryDataModule, backbone: Any) -> str:
    """How long the windows of the stories that are probed are, where the backbone hears less; else nothing."""
    most, window = getattr(backbone, "max_samples", None), data.window
    stories = dict.fromkeys([*data.roles.stories("fit"), *data.roles.stories("score")])
    longest = max(data.store.timebase(story).window_length(window.n_trs, window.context_s) for story in stories)
    if most is None or longest <= most:
        return ""
    rate_hz = backbone.sample_rate_hz
    return f"{longest / rate_hz:g} s long, context included, and the backbone hears at most {most / rate_hz:g} s"


def refuse_same_sounds(data: StoryDataModule, tuned: StoryDataModule) -> None:
    """Refuse stories that are fitted or scored and whose sound, under any name, is tuned on.

    Raises
    ------
    LeakError
        Unless data.allow says so in words; see `splits.refuse_tuned`.
    """
    theirs, ours = tuned.roles.stories("tune"), [s for role in ("fit", "score") for s in data.roles.stories(role)]
    lengths = [{part.store.n_samples(story) for story in stories} for part, stories in ((data, ours), (tuned, theirs))]
    sounds, tuned_sounds = (
        {story: sound_hash(part.store, story, lengths[0] & lengths[1]) for story in stories}
        for part, stories in ((data, ours), (tuned, theirs))
    )
    refuse_tuned(data.roles, theirs, sounds, tuned_sounds)


def more_facts(data: StoryDataModule, tuned: Iterable[str]) -> dict[str, Any]:
    """What a record's facts add: the data set, and a warning where scored stories are named like stories tuned on."""
    names, fit = set(tuned), data.roles.spans("fit")
    same = sorted(set(data.roles.stories("score")) & names)
    both = [span for span in fit if span.story in names] if data.roles.allows("tune", "fit") else []
    warning = (
        f"{data.store.name} (held-out data): {', '.join(same)} are scored, and stories of these names are tuned on; if"
        " they are the same sound, their scores are not held out."
    )
    return {"data_set": data.store.name, "warnings": [warning] if same else [], **tuned_facts(fit, both)}
