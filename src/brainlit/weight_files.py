"""Files of weights as they come from downloads: which are there, and what is wrong with one that cannot be used."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainlit.files import CONTENTS, contents_damage
from brainlit.guard import DAMAGE, UnreadableFileError, read_json

if TYPE_CHECKING:
    from torch import nn

SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
_HEADER_BYTES = 8
_IS_FOLDER = 0x10
"""Of an entry's attributes in a zip; no checksum is over these."""
_BLOCK_BYTES = 1 << 22
_MAX_HEADER_BYTES = 100_000_000
_LEGACY_PICKLE = b"\x80"
_AGAIN = "download it again (`hf download ORG/NAME --local-dir FOLDER`), or save it again with save_pretrained."


@contextmanager
def without_bars() -> Iterator[None]:
    """transformers shows no bars of its own, for loading and writing what takes a moment; bars of downloads stay."""
    from transformers.utils import logging

    before = logging.set_tqdm_hook(lambda bar, args, options: bar(*args, **{**options, "disable": True}))
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


def split_revision(weights: str) -> tuple[str, str | None]:
    """A hub id, or the name of a size, and the revision behind its @; None where there is none, or it is a folder.

    >>> split_revision("openai/whisper-base@refs/pr/3"), split_revision("./models/mine@home")
    (('openai/whisper-base', 'refs/pr/3'), ('./models/mine@home', None))
    """
    name, at, revision = weights.partition("@")
    if not at or weights.startswith(("/", ".", "~")) or Path(weights).exists():
        return weights, None
    return name, revision


def is_path(weights: str) -> bool:
    """Whether weights are written as a path of a folder is, and not as a hub id or a name.

    >>> is_path("openai/whisper-base@refs/pr/3"), is_path("a/b/c"), is_path("~/models")
    (False, True, True)
    """
    return weights.startswith(("/", ".", "~")) or weights.partition("@")[0].count("/") > 1


def folder_damage(folder: Path) -> str | None:
    """The first file of a save_pretrained folder that cannot be used, what it is and what to do; None if all can be.

    Of a folder that brainlit wrote every byte is compared with its contents.json. Of others sizes and beginnings are
    read, not the weights, so it costs next to nothing. What `from_pretrained` would not open is not looked at.

    Parameters
    ----------
    folder : Path
        With config.json and weights; a folder without weights has no damage.
    """
    if (folder / CONTENTS).is_file() and (changed := contents_damage(folder)) is not None:
        return f"{folder} is not what was written: {changed}; export or download it again."
    config = folder / "config.json"
    if config.is_file() and (damage := json_damage(config)) is not None:
        return damage
    for name in SINGLE_FILES:  # in the order in which from_pretrained looks for them
        if (folder / name).is_file():
            return weights_damage(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _index_damage(index)
    return None


def json_damage(path: Path) -> str | None:
    """What is wrong with a file of settings in JSON; None if it holds an object."""
    found = something_else(path)
    if found is not None:
        return found
    try:
        read_json(path, "settings in JSON", "")
    except UnreadableFileError as error:
        return f"{str(error).rstrip('. ')}; {_AGAIN}"
    return None


def weights_damage(path: Path) -> str | None:
    """What is wrong with a .safetensors file, or with one that torch.save wrote; None if its form is whole."""
    found = something_else(path)
    if found is not None:
        return found
    return _safetensors_damage(path) if path.suffix == ".safetensors" else _torch_damage(path)


def zip_damage(path: Path, ending: str = "") -> str | None:
    """What is wrong with a file of torch.save by the checksums inside it, in words; None if it is what was written.

    Parameters
    ----------
    ending : str
        Of the entries to check; all by default. 'data.pkl' leaves out the tensors, and takes no time.
    """
    damage = something_else(path, "take another copy of it.") or _torch_damage(path)
    if damage is not None or not _is_zip(path):  # files of old have no checksums
        return damage
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.external_attr & _IS_FOLDER:  # torch would leave its tensor as memory happened to be
                    raise zipfile.BadZipFile(f"{entry.filename} is marked as a folder")
                if entry.filename.endswith(ending):
                    with archive.open(entry) as content:
                        while content.read(_BLOCK_BYTES):  # the checksum is compared at the end
                            pass
    except DAMAGE as error:
        return f"{path} is damaged: its content is not what its checksum says ({error}); take another copy of it."
    return None


def numbers_damage(model: nn.Module) -> str | None:
    """The first parameter that holds NaN or infinity; None if all numbers are numbers."""
    import torch

    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter.sum()) and not torch.isfinite(parameter).all():  # a sum is quick
            bad = int((~torch.isfinite(parameter)).sum())
            return f"{bad} of {parameter.numel()} numbers of {name!r} are NaN or infinite"
    return None


def something_else(path: Path, cure: str = _AGAIN) -> str | None:
    """What lies under the name of a file instead of it: nothing, a pointer of git lfs, a web page; or None."""
    n_bytes = path.stat().st_size
    if n_bytes == 0:
        return f"{path} is empty; {cure}"
    with path.open("rb") as file:
        start = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"version https://git-lfs"):
        return (
            f"{path} is a pointer of git lfs and not the file ({n_bytes} bytes); run `git lfs install` and `git lfs"
            " pull` in its folder, or download it with `hf download ORG/NAME --local-dir FOLDER`."
        )
    if start[:1] == b"<" or start[:9].lower() == b"<!doctype":
        return f"{path} is a web page (HTML or XML) and not the file: the download was answered otherwise; {cure}"
    return None


def _index_damage(index: Path) -> str | None:
    damage = json_damage(index)
    if damage is not None:
        return damage
    shards = read_json(index, "an index of weights", "").get("weight_map")
    if not isinstance(shards, dict) or not shards:
        return f"{index} has no weight_map, which says what is in which file; {_AGAIN}"
    names = sorted({str(name) for name in shards.values()})
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        return (
            f"{index} names {len(names)} files of weights, and {len(missing)} are missing, first {missing[0]}; download"
            " them too (`hf download ORG/NAME --local-dir FOLDER`)."
        )
    return next((damage for name in names if (damage := weights_damage(index.parent / name))), None)


def _safetensors_damage(path: Path) -> str | None:
    """Compare the file's length with what its header says: eight bytes of length, the header in JSON, the numbers."""
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        n_header = int.from_bytes(file.read(_HEADER_BYTES), "little")
        if n_bytes < _HEADER_BYTES or n_header > _MAX_HEADER_BYTES:
            return f"{path} is no safetensors file ({n_bytes} bytes); {_AGAIN}"
        raw = file.read(n_header)
    if len(raw) < n_header:
        return f"{path} is cut off inside its header ({n_bytes} bytes); {_AGAIN}"
    try:
        header: dict[str, Any] = json.loads(raw)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = _HEADER_BYTES + n_header + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return f"{path} is no safetensors file, or its header is damaged; {_AGAIN}"
    if n_bytes < expected:
        return f"{path} is cut off: {n_bytes} of {expected} bytes are there; {_AGAIN}"
    if n_bytes > expected:
        return f"{path} has {n_bytes} bytes, and its header says {expected}; {_AGAIN}"
    return None


def _torch_damage(path: Path) -> str | None:
    """Whether a file is what torch.save writes: a zip with its directory at the end, or, long ago, a pickle."""
    if _is_zip(path):
        return None
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        return f"{path} is cut off ({path.stat().st_size} bytes; its end is missing); {_AGAIN}"
    if start[:1] == _LEGACY_PICKLE:
        return None
    return f"{path} is nothing that torch.save wrote; {_AGAIN}"


def _is_zip(path: Path) -> bool:
    """Whether there is a zip's directory at the end; one that contradicts itself is none."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # "span multiple disks"
        return False


def is_from_readers_of_weights(error: BaseException) -> bool:
    """Whether an error says that a file of weights cannot be read: of safetensors, pickle, zip or torch's reader."""
    from pickle import UnpicklingError

    kinds = (UnpicklingError, EOFError, RuntimeError, KeyError, AttributeError, zipfile.BadZipFile)
    return type(error).__name__ == "SafetensorError" or isinstance(error, kinds)


def what_readers_say(error: BaseException) -> str:
    """The first line of such an error; torch's advice to open files that run code is never passed on."""
    text = str(error).strip()
    if "weights_only" in text or "Weights only load failed" in text:
        return (
            "a file of weights is damaged, or holds Python objects besides tensors, which can run code and are not"
            f" opened; {_AGAIN}"
        )
    return f"its weights cannot be read ({text.splitlines()[0] if text else type(error).__name__}); {_AGAIN}"
