"""Subjects made from others: a group's mean as a subject of its own, and regions' means as targets.

Both wrap another source, so that any data set has them, also one within the other. Averaging over people keeps what
they share and takes away what is each one's own: of N members with a share a of shared variance, the mean has
a / (a + (1 - a) / N). Members stand in the store as the presentations of their group, so that its noise ceilings come
from them as those of a person come from repeats: shared responses are signal, all else is noise.

Shared-response models (Chen et al. 2015, NeurIPS; hyperalignment, Haxby et al. 2011) are not here: their bases are
fitted on responses, on rows that neither choose nor are scored, so a store would hold for one choice of roles only.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from brainlit.hints import did_you_mean
from brainlit.stories.base import (
    FeatureSpace,
    Float32Array,
    IntArray,
    Intervals,
    LazyRepeats,
    Remote,
    Responses,
    SourceError,
    Story,
    StorySource,
    Subject,
    SubjectLeftOut,
)
from brainlit.stories.published import chosen
from brainlit.stories.response_filter import ResponseFilter

log = logging.getLogger(__name__)

MIN_MEMBERS = 2
_BYTES_AT_ONCE = 256 * 2**20
"""Members' responses to a story are kept while they are no more, or else read a second time, one by one."""
_SAME_PLACE_MM = 0.01
_CURE = "Bring all to one space (such as fsaverage5), or take the means of regions, which may differ in size: wrap the"
_CURE += " source in brainlit.stories.RegionMeans (docs/your_data.md, A group as a subject)."


class DerivedSource(StorySource):
    """A source whose stories are those of another one, and whose subjects are made from its subjects.

    Parameters
    ----------
    source : StorySource
        The other one.
    """

    def __init__(self, source: StorySource) -> None:
        self.source, self.name = source, source.name

    def story_names(self) -> Sequence[str]:
        """Those of the other source."""
        return self.source.story_names()

    def subject_names(self) -> Sequence[str]:
        """Those of the other source."""
        return self.source.subject_names()

    def story(self, name: str) -> Story:
        """As the other source has it."""
        return self.source.story(name)

    def phones(self, story: str) -> Intervals | None:
        """As the other source has them."""
        return self.source.phones(story)

    def feature_spaces(self, story: Story) -> list[FeatureSpace]:
        """As the other source has them."""
        return self.source.feature_spaces(story)

    def default_roles(self) -> dict[str, list[str]]:
        """Those of the other source."""
        return self.source.default_roles()

    def on_other_clocks(self) -> dict[str, str]:
        """Those of the other source."""
        return self.source.on_other_clocks()

    def parts(self) -> dict[str, str]:
        """Those of the other source."""
        return self.source.parts()

    def story_files(self, name: str) -> Sequence[Path]:
        """Those of the other source."""
        return self.source.story_files(name)

    def subject_files(self, name: str) -> Sequence[Path]:
        """Those of the other source."""
        return self.source.subject_files(name)

    def left_out(self) -> dict[str, str]:
        """What the other source lacks or refuses."""
        return self.source.left_out()

    def response_filter(self) -> ResponseFilter | None:
        """What the responses passed; means of filtered responses have passed the same."""
        return self.source.response_filter()

    def before_sound(self) -> Literal["silence", "mean"]:
        """As the other source has it."""
        return self.source.before_sound()

    def slice_reference(self) -> float:
        """As the other source has it."""
        return self.source.slice_reference()

    def facts(self) -> dict[str, str]:
        """What reports say of the data."""
        return self.source.facts()

    def remote(self) -> Remote | None:
        """Where the files of the other source can be downloaded."""
        return self.source.remote()


# --- Regions ---


class RegionMeans(DerivedSource):
    """Every subject of another source with one target per region: the mean over its voxels.

    Voxels of different people are no common places, regions of one name are; so these targets can be averaged over
    people. Of every presentation the voxels with data are averaged and z-scored over time again, because the mean of
    z-scores varies the less the more voxels a region has; several presentations are then averaged as everywhere.

    Parameters
    ----------
    source : StorySource
    regions : list of str, optional
        Which regions, in this order; None takes all that a subject has.
    """

    def __init__(self, source: StorySource, regions: list[str] | None = None) -> None:
        super().__init__(source)
        self.regions = None if regions is None else list(dict.fromkeys(regions))
        self._columns: dict[str, list[IntArray]] = {}

    def settings(self) -> dict[str, Any]:
        """Which regions, and the settings of the other source."""
        return {"source": type(self).__name__, "regions": self.regions, "of": self.source.settings()}

    def subject(self, name: str) -> Subject:
        """One column per region, each of which is a region of its own; planted numbers are means over its voxels.

        Raises
        ------
        SourceError
            If the subject lacks a region, or has none.
        """
        whole = self.source.subject(name)
        wanted = list(whole.regions) if self.regions is None else self.regions
        if not wanted:
            raise SourceError(
                f"{name} has no named region to average within. Give the data set regions: docs/regions.md."
            )
        for region in wanted:
            if region not in whole.regions:
                raise SourceError(f"{name} has no region {region!r}. {did_you_mean(region, whole.regions)}")
        columns = [np.flatnonzero(whole.regions[region]).astype(np.int64) for region in wanted]
        self._columns[name] = columns
        own = dict(zip(wanted, np.eye(len(wanted), dtype=np.bool_), strict=True))
        return Subject(name, len(wanted), own, truth=_truth_of_regions(whole.truth, columns))

    def responses(self, subject: str, story: str) -> Responses | None:
        """The regions' means, each presentation z-scored over time; NaN for a region without a voxel that has data."""
        found = self.source.responses(subject, story)
        if found is None:
            return None
        if subject not in self._columns:
            self.subject(subject)
        columns = [own[_has_data(found.values)[own]] for own in self._columns[subject]]
        if found.repeats is None:
            return Responses(_region_means(found.values, columns))
        repeats = np.stack([_region_means(one, columns) for one in found.repeats])
        return Responses(repeats.mean(axis=0), repeats)

    def facts(self) -> dict[str, str]:
        """Those of the other source, and what the targets are."""
        which = "every named region" if self.regions is None else ", ".join(self.regions)
        return {**self.source.facts(), "targets": f"the mean over the voxels with data of {which}, z-scored per run"}


def _has_data(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Columns that are finite throughout and not constant, (n_columns,)."""
    return np.asarray(np.isfinite(values).all(axis=0) & (values.max(axis=0) > values.min(axis=0)))


def _region_means(values: npt.NDArray[Any], columns: Sequence[IntArray]) -> Float32Array:
    """Means over columns, z-scored: (n_trs, n_voxels) -> (n_trs, n_regions)."""
    means = np.full((len(values), len(columns)), np.nan)
    for k, own in enumerate(columns):
        if len(own):
            mean = values[:, own].mean(axis=1, dtype=np.float64)
            mean -= mean.mean()
            sd = mean.std()
            means[:, k] = mean / sd if sd > 0 else np.nan
    return means.astype(np.float32)


def _truth_of_regions(truth: Mapping[str, npt.NDArray[Any]], columns: Sequence[IntArray]) -> dict[str, Any]:
    """Planted numbers as means; other planted answers where each region has one of its own."""
    found = {}
    for key, values in truth.items():
        if np.issubdtype(values.dtype, np.floating):
            found[key] = np.array([values[own].mean(axis=0) if len(own) else np.nan for own in columns])
        elif all(len(own) and (values[own] == values[own[0]]).all() for own in columns):
            found[key] = np.array([values[own[0]] for own in columns])
    return found


# --- Groups ---


@dataclass(frozen=True)
class _Group:
    """Members of whom something can be used, the group's own voxels, and why others are left out."""

    members: tuple[str, ...]
    subject: Subject
    left_out: dict[str, str]


class GroupMean(DerivedSource):
    """The mean of several people as a subject of its own.

    A row is the mean over the members who heard the story on the same clock, at least two of them, each z-scored per
    run and voxel as every source has it: scanner units differ between people, and whoever varies most would weigh most.
    Of a member who heard it several times it is the mean of those presentations. The group's mean is not z-scored
    again, so that what is shared is as large in stories with few members as in those with many. The store keeps the
    members' responses as presentations, with their names. A voxel without data in one of the members who heard a story
    is none of the group's.

    Parameters
    ----------
    source : StorySource
        Whose subjects are averaged. All must be in one space: column k is the same place in everybody.
    name : str
        Of the new subject.
    members : list of str, optional
        Who is in it; None takes all subjects of the source. Those who cannot be used are left out and named.
    beside_members : bool
        Whether the store also holds the subjects of the source. A run uses either the group or its members, for the
        group holds their responses: data.subjects says which.

    Raises
    ------
    SourceError
        If a member is unknown or named twice, there are fewer than two, or the name is that of a subject.
    """

    def __init__(
        self,
        source: StorySource,
        name: str = "group",
        members: list[str] | None = None,
        beside_members: bool = False,
    ) -> None:
        super().__init__(source)
        self.group, self.beside_members = name, beside_members
        self._asked = members

    @cached_property
    def members(self) -> tuple[str, ...]:
        """Who is asked for."""
        known = list(self.source.subject_names())
        if self.group in known:
            raise SourceError(f"the group is called {self.group!r}, as one of the subjects is. Give it another name.")
        members = chosen("subject", self._asked, known)
        if len(members) < MIN_MEMBERS:
            raise SourceError(
                f"group {self.group!r} has {len(members)} member ({', '.join(members)}); a mean needs at least"
                f" {MIN_MEMBERS}. Name more members, or use the subject by itself."
            )
        return members

    @cached_property
    def _found(self) -> _Group:
        """Whom the group consists of; one member's voxels in memory beside the first one's."""
        left_out: dict[str, str] = {}
        names: list[str] = []
        first: Subject | None = None
        n_in: dict[str, npt.NDArray[np.int64]] = {}
        truths = []
        for name in self.members:
            try:
                subject = self.source.subject(name)
            except SubjectLeftOut as reason:
                log.warning("%s takes no part in %s: %s", name, self.group, reason)
                left_out[name] = str(reason)
                continue
            first = first or subject
            _require_same_space(self.group, first, subject)
            names.append(name)
            truths.append(subject.truth)
            for region, mask in subject.regions.items():
                n_in[region] = n_in.get(region, np.zeros(subject.n_voxels, dtype=np.int64)) + mask
        if first is None or len(names) < MIN_MEMBERS:
            raise SubjectLeftOut(
                f"{len(names)} of its {len(self.members)} members can be used"
                f" ({'; '.join(f'{name}: {reason}' for name, reason in left_out.items())}); a mean needs at least"
                f" {MIN_MEMBERS}"
            )
        regions = {region: 2 * n > len(names) for region, n in n_in.items()}  # in most of them
        subject = replace(first, name=self.group, regions=regions, truth=_truth_of_members(truths))
        return _Group(tuple(names), subject, left_out)

    def settings(self) -> dict[str, Any]:
        """The group and who is asked for, and the settings of the other source."""
        own = {"group": self.group, "members": list(self.members), "beside_members": self.beside_members}
        return {"source": type(self).__name__, **own, "of": self.source.settings()}

    def subject_names(self) -> Sequence[str]:
        """The group; before it, if asked, the subjects of the other source."""
        return [*(self.source.subject_names() if self.beside_members else ()), self.group]

    def subject(self, name: str) -> Subject:
        """Voxels of the group are those of its members; a region is where it is in more than half of them.

        Raises
        ------
        SourceError
            If members are in different spaces; the message names two of them.
        SubjectLeftOut
            If fewer than two members can be used.
        """
        return self._found.subject if name == self.group else self.source.subject(name)

    def responses(self, subject: str, story: str) -> Responses | None:
        """The mean over the members who heard the story, and theirs as presentations; None if fewer than two did."""
        if subject != self.group:
            return self.source.responses(subject, story)
        heard: list[str] = []
        kept: list[Float32Array] = []
        total = np.zeros(())
        for member in self._found.members:
            values = self._values(member, story)
            if values is None:
                continue
            heard.append(member)
            total = total + values.astype(np.float64)
            if values.nbytes * len(heard) <= _BYTES_AT_ONCE:
                kept.append(values)
            else:
                kept.clear()
        if len(heard) < MIN_MEMBERS:
            who = heard[0] if heard else "nobody"
            log.warning("%s has no rows of %s: of its members %s heard it; a mean needs two.", self.group, story, who)
            return None
        presentations: Any = LazyRepeats(len(heard), lambda k: self._required(heard[k], story))
        if len(kept) == len(heard):
            presentations = np.stack(kept)
        return Responses((total / len(heard)).astype(np.float32), presentations, tuple(heard))

    def subject_files(self, name: str) -> Sequence[Path]:
        """Of the group, those of all members."""
        if name != self.group:
            return self.source.subject_files(name)
        return list(dict.fromkeys(path for member in self.members for path in self.source.subject_files(member)))

    def left_out(self) -> dict[str, str]:
        """What the other source lacks, and the members of whom nothing can be used."""
        try:
            own = self._found.left_out
        except SubjectLeftOut:  # the store says why of the group itself
            own = {}
        return {**self.source.left_out(), **own}

    def facts(self) -> dict[str, str]:
        """Those of the other source, what the group is, and what its ceiling means."""
        own = {
            self.group: f"the mean of at most {len(self.members)} people ({', '.join(self.members)}), each z-scored per"
            f" run; of at least {MIN_MEMBERS} in every row",
            "noise ceiling": f"of {self.group} from its members: what they share is signal, what is each one's own is"
            " noise",
        }
        return {**self.source.facts(), **own}

    def _values(self, member: str, story: str) -> Float32Array | None:
        """A member's responses, NaN in columns without data; None without any."""
        found = self.source.responses(member, story)
        if found is None:
            return None
        has_data = _has_data(found.values)
        return np.where(has_data, found.values, np.float32(np.nan)) if has_data.any() else None

    def _required(self, member: str, story: str) -> Float32Array:
        values = self._values(member, story)
        if values is None:
            raise SourceError(f"{member} had responses to {story!r} and has none any more. Build the store again.")
        return values


def _require_same_space(group: str, first: Subject, other: Subject) -> None:
    """Refuse two members whose columns are not the same places, as far as anybody can tell."""
    if first.n_voxels != other.n_voxels:
        names = [set(_column_names(one).values()) for one in (first, other)]
        cure = _CURE
        if all(len(own) == one.n_voxels for own, one in zip(names, (first, other), strict=True)):
            shared = [name for name in first.regions if name in other.regions]
            cure = f"Name the regions that all have, RegionMeans.regions: [{', '.join(shared)}] for these two."
        raise SourceError(
            f"{group!r} is a mean over people, but {first.name} has {first.n_voxels:,} voxels and {other.name}"
            f" {other.n_voxels:,}: columns are not the same places. {cure}"
        )
    left, right = (_column_names(one) for one in (first, other))
    for column in sorted(left.keys() & right.keys()):
        if left[column] != right[column]:
            raise SourceError(
                f"{group!r} is a mean over people, but column {column} is {left[column]!r} in {first.name} and"
                f" {right[column]!r} in {other.name}. Give all subjects the same columns in the same order."
            )
    places: tuple[tuple[str, Any, Any, float], ...] = (
        ("vertices", first.vertices, other.vertices, 0.0),
        ("coordinates", first.coordinates_mm, other.coordinates_mm, _SAME_PLACE_MM),
    )
    for what, ours, theirs, within in places:
        if ours is not None and theirs is not None and not np.allclose(ours, theirs, rtol=0, atol=within):
            n_moved = int((np.abs(ours - theirs) > within).reshape(len(ours), -1).any(axis=1).sum())
            raise SourceError(
                f"{group!r} is a mean over people, but {n_moved:,} of {first.n_voxels:,} voxels of {first.name} and"
                f" {other.name} have other {what}: columns are not the same places. {_CURE}"
            )


def _column_names(subject: Subject) -> dict[int, str]:
    """Columns that are a region of their own, and its name."""
    return {int(np.argmax(mask)): region for region, mask in subject.regions.items() if mask.sum() == 1}


def _truth_of_members(truths: Sequence[Mapping[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Planted numbers as means over members; other planted answers where all agree."""
    found = {}
    for key, values in truths[0].items():
        others = [truth.get(key) for truth in truths]
        if any(one is None or one.shape != values.shape for one in others):
            continue
        together = np.stack([np.asarray(one) for one in others])
        if np.issubdtype(values.dtype, np.floating):
            found[key] = together.mean(axis=0)
        elif (together == together[0]).all():
            found[key] = values
    return found
