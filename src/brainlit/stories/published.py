"""What the adapters of published data sets share: a folder, and the stories and subjects that are asked for by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from brainlit.hints import did_you_mean
from brainlit.stories.base import SourceError, StorySource
from brainlit.stories.readers.channels import Channel

PUBLISHED_CHANNEL: Channel = "mean"
"""Of every published sound, as those who used it before have it: nobody can choose another, so that channels which have
nothing in common are a warning and no error."""


class PublishedSource(StorySource):
    """A source whose stories and subjects are known by name before any file is read.

    Parameters
    ----------
    root : str
        Local folder that mirrors the publication.
    stories, subjects : sequence of str
        What is asked for; checked by the data set, mostly with `chosen`.
    """

    def __init__(self, root: str, stories: Sequence[str], subjects: Sequence[str]) -> None:
        self.root = Path(root)
        self._stories, self._subjects = tuple(stories), tuple(subjects)

    def story_names(self) -> list[str]:
        """The stories that are asked for."""
        return list(self._stories)

    def subject_names(self) -> list[str]:
        """The subjects that are asked for."""
        return list(self._subjects)

    def _require_story(self, name: str) -> None:
        require_known("story", name, self._stories)

    def _require_subject(self, name: str) -> None:
        require_known("subject", name, self._subjects)


def require_known(what: str, value: str, known: Collection[str]) -> None:
    """Refuse a name that is not among the known ones; the SourceError gives the nearest."""
    if value not in known:
        raise SourceError(f"there is no {what} {value!r}. {did_you_mean(str(value), known)}")


def chosen(what: str, asked: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """The names that are asked for, each once, in the order of the data set; all for None."""
    if asked is None:
        return tuple(known)
    if not asked:
        raise SourceError(f"no {what} is asked for; leave the list out to take all. {did_you_mean('', known)}")
    for name in asked:
        require_known(what, name, known)
        if list(asked).count(name) > 1:
            raise SourceError(f"{what} {name!r} is asked for twice; list it once.")
    return tuple(name for name in known if name in asked)


def paths_below(root: Path, files: Iterable[Path]) -> tuple[str, ...]:
    """Files as `Remote.paths`: relative to the root, each once; what lies elsewhere is not published there."""
    return tuple(dict.fromkeys(file.relative_to(root).as_posix() for file in files if file.is_relative_to(root)))
