"""Where a model's files are: a folder, or a place on the model hub with its revision; and a folder inside either."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from brainlit.hints import few
from brainlit.paths import cache_dir
from brainlit.weight_files import is_path, split_revision

WEIGHTS_VARIABLE = "BRAINLIT_WEIGHTS"
RANDOM_PREFIX = "random:"
_ENTRIES = ("config.json", "adapter_config.json")
"""Files of which a model, or a change to one, has one."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"\w[\w./+-]*")


class WeightsError(ValueError):
    """Weights that are not there, or are another model's."""


@dataclass(frozen=True)
class Address:
    """A folder with a model's files, or where they are on the hub.

    Parameters
    ----------
    location : str
        A folder, or a hub id such as facebook/wav2vec2-base.
    revision : str or None
        Branch, tag or commit on the hub; None is the hub's usual one, main. Of a folder None, but where it was
        downloaded for one.
    subfolder : str
        Of the folder, or of the repository on the hub; empty for its top.
    """

    location: str
    revision: str | None = None
    subfolder: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether the files are in a folder of ours, and not on the hub or in its cache."""
        return Path(self.location).is_dir()

    @property
    def place(self) -> str:
        """What `from_pretrained` is given first: the folder that holds config.json, or the hub id."""
        return str(Path(self.location) / self.subfolder) if self.is_folder else self.location

    @property
    def options(self) -> dict[str, str]:
        """What `from_pretrained` is given besides."""
        given = {} if self.is_folder else {"revision": self.revision, "subfolder": self.subfolder}
        return {name: value for name, value in given.items() if value}

    def file(self, name: str) -> Path | None:
        """A file of the model that is here, in the folder or in the hub's cache; the hub is not asked."""
        from huggingface_hub import try_to_load_from_cache

        if self.is_folder:
            found: object = Path(self.place) / name
        else:
            inside = f"{self.subfolder}/{name}" if self.subfolder else name
            found = try_to_load_from_cache(self.location, inside, revision=self.revision)
        return Path(found) if isinstance(found, (str, Path)) and Path(found).is_file() else None

    @property
    def folder(self) -> Path | None:
        """The folder that its files are in; None for a hub id of which nothing is in the hub's cache."""
        if self.is_folder:
            return Path(self.place)
        return next((found.parent for name in _ENTRIES if (found := self.file(name))), None)

    @property
    def commit(self) -> str | None:
        """The hub's commit of the files that are here; None for folders that did not come from the hub.

        `hf download --local-dir` leaves a note of it in the folder; the hub's cache has it in its names.
        """
        if self.is_folder:
            return _noted_commit(Path(self.location), self.subfolder)
        folder = self.folder
        if folder is None:
            return None
        for _ in PurePosixPath(self.subfolder).parts:
            folder = folder.parent
        return folder.name

    def __str__(self) -> str:
        """As in messages and records: ORG/NAME@REVISION/SUBFOLDER."""
        return named(self.location, self.revision, self.subfolder)


def named(weights: str, revision: str | None, subfolder: str | None) -> str:
    """Weights, revision and subfolder as one name.

    >>> named("org/name", "v1.0", "checkpoint-500"), named("org/name@v1.0", "v1.0", None)
    ('org/name@v1.0, subfolder checkpoint-500', 'org/name@v1.0')
    """
    name = weights if revision is None or split_revision(weights)[1] else f"{weights}@{revision}"
    return f"{name}, subfolder {subfolder}" if subfolder else name


def asked_revision(weights: str, revision: str | None) -> tuple[str, str | None]:
    """Weights and the revision that is asked for, behind an @ or as a setting of its own.

    >>> asked_revision("org/name@v1.0", None), asked_revision("org/name", "v1.0")
    (('org/name', 'v1.0'), ('org/name', 'v1.0'))

    Raises
    ------
    WeightsError
        If both are given and differ, or it is none that the hub could have.
    """
    name, behind = split_revision(weights)
    if behind is not None and revision is not None and behind != revision:
        raise WeightsError(
            f"weights {weights!r} name the revision {behind!r}, and the setting revision says {revision!r}; give one of"
            " the two."
        )
    asked = behind if revision is None else revision
    if asked is not None and (not _REVISION.fullmatch(asked) or ".." in asked):
        raise WeightsError(
            f"weights {weights!r}: {asked!r} is no revision; give a branch, a tag or a commit of the hub, such as main"
            " or v1.0."
        )
    return name, asked


def check_subfolder(subfolder: str | None) -> None:
    """Refuse a subfolder that does not lie inside.

    Raises
    ------
    WeightsError
        For absolute paths, '..' and the like.
    """
    if subfolder is not None and any(part in ("", ".", "..") for part in subfolder.split("/")):
        raise WeightsError(
            f"subfolder {subfolder!r} is no folder inside the weights' own; give a path such as checkpoint-500."
        )


def weights_dir() -> Path:
    """Where weights that were copied here by hand are looked for: $BRAINLIT_WEIGHTS, else the cache's `weights`."""
    return Path(os.environ.get(WEIGHTS_VARIABLE) or cache_dir() / "weights").expanduser()


def local_folder(hub_id: str, revision: str | None = None) -> Path:
    """The folder for a hub id, `<weights_dir>/<org>/<name>`, or `<name>@<revision>`; whether it is there or not."""
    return weights_dir() / (hub_id if revision is None else f"{hub_id}@{revision}")


def folder_address(folder: Path, weights: str, revision: str | None, subfolder: str | None) -> Address:
    """A folder that somebody named.

    Raises
    ------
    WeightsError
        If a revision is asked for, which no folder has, or it has no such subfolder.
    """
    if revision is not None:
        raise WeightsError(
            f"weights {weights!r} are the folder {folder}, and revision {revision!r} is asked for: a folder has no"
            " revision. Leave it out, or give the hub id ORG/NAME."
        )
    return _inside(Address(str(folder), None, subfolder or ""), weights)


def hub_address(hub_id: str, weights: str, revision: str | None, subfolder: str | None) -> Address:
    """What a hub id stands for: the folder that was copied here for it, else the hub and its cache.

    With a revision it is the folder `<name>@<revision>`, or `<name>` where its note says that very commit.

    Raises
    ------
    WeightsError
        If such a folder holds another commit, or has no such subfolder.
    """
    inside, here = subfolder or "", local_folder(hub_id)
    if revision is None:
        return _inside(Address(str(here), None, inside), weights) if here.is_dir() else Address(hub_id, None, inside)
    own = local_folder(hub_id, revision)
    if own.is_dir():
        noted = _noted_commit(own, inside)
        if noted is not None and _COMMIT.fullmatch(revision) and noted != revision:
            raise WeightsError(
                f"{own} was downloaded from the commit {noted}, and not from the one in its name; download it again:"
                f" {download_command(Address(hub_id, revision))}."
            )
        return _inside(Address(str(own), revision, inside), weights)
    if here.is_dir() and _noted_commit(here, inside) == revision:
        return _inside(Address(str(here), revision, inside), weights)
    return Address(hub_id, revision, inside)


def download_command(address: Address) -> str:
    """What fetches a model of the hub into the folder in which it is looked for."""
    asked = f" --revision {address.revision}" if address.revision else ""
    folder = local_folder(address.location, address.revision)
    return f"`hf download {address.location}{asked} --local-dir {folder}`"


def at_commit(address: Address) -> Address:
    """The same files by their commit, so that what is read later is of the same state of the hub."""
    return address if address.is_folder or address.commit is None else replace(address, revision=address.commit)


def is_named_folder(weights: str) -> bool:
    """Whether weights are meant as a folder here, by how they are written or because there is one."""
    return is_path(weights) or Path(weights).expanduser().exists()


def _inside(address: Address, weights: str) -> Address:
    folder = Path(address.location)
    if address.subfolder and folder.is_dir() and not Path(address.place).is_dir():
        there = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        raise WeightsError(
            f"weights {weights!r}: {folder} has no subfolder {address.subfolder!r}; it has {few(there, 5) or 'none'}."
        )
    return address


def _noted_commit(folder: Path, subfolder: str) -> str | None:
    notes = folder / ".cache" / "huggingface" / "download" / subfolder
    for name in _ENTRIES:
        note = notes / f"{name}.metadata"
        if note.is_file():
            return note.read_text().split("\n", 1)[0].strip() or None
    return None
