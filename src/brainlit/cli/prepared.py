"""Remember which command found which store in order, so that saying it again needs no Lightning (six seconds here).

The memory is a hint: where anything that could change the answer differs (arguments, config files, environment, any
source file or its folder, the store, this software), the command takes the long way and finds out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import brainlit
from brainlit.places import cache_dir
from brainlit.store import StoreError, StoryStore, write_json

if TYPE_CHECKING:
    from brainlit.datamodules import StoryDataModule

_ENVIRONMENT = re.compile(r"oc\.env:\s*([A-Za-z_]\w*)")


def known_store(arguments: Sequence[str]) -> Path | None:
    """The store that the same command found in order, if nothing has changed since; None where that is not sure."""
    try:
        memory = json.loads(_memory(arguments).read_text(encoding="utf-8"))
        if not all(_stamp(Path(path)) == stamp for path, stamp in memory["watched"].items()):
            return None
        store = StoryStore.open(Path(memory["store"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StoreError):
        return None
    return store.path if store.fingerprint == memory["fingerprint"] else None


def remember_store(arguments: Sequence[str], datamodule: StoryDataModule) -> None:
    """Remember that this command found the data module's store in order."""
    store = StoryStore.open(Path(datamodule.store_dir))
    content = {
        "store": str(store.path.absolute()),
        "fingerprint": store.fingerprint,
        "watched": {str(path): _stamp(path) for path in _watched(datamodule)},
    }
    file = _memory(arguments)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, content)


def _memory(arguments: Sequence[str]) -> Path:
    """Where the memory of a command lies: its name holds all that the command line decides."""
    named = [argument.rpartition("=")[2] for argument in arguments]
    configs = [Path(name) for name in named if name.endswith((".yaml", ".yml")) and Path(name).is_file()]
    texts = {str(path): path.read_text(encoding="utf-8") for path in configs}
    names = {name for text in [*texts.values(), *arguments] for name in _ENVIRONMENT.findall(text)}
    code = Path(brainlit.__file__).parent
    decides = {
        "arguments": list(arguments),
        "configs": texts,
        "environment": {name: os.environ.get(name) for name in sorted(names)},
        "folder": str(Path.cwd()),
        "software": [brainlit.__version__, max(path.stat().st_mtime_ns for path in code.rglob("*.py"))],
    }
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    return cache_dir() / "prepared" / f"{key}.json"


def _watched(datamodule: StoryDataModule) -> set[Path]:
    """All files that the source reads and their folders, where new ones would appear; files that settings name."""
    source = datamodule.source
    files = [path.absolute() for name in source.story_names() for path in source.story_files(name)]
    files += [path.absolute() for name in source.subject_names() for path in source.subject_files(name)]
    top = Path(os.path.commonpath([path.parent for path in files])) if files else None
    folders = {folder for path in files for folder in path.parents if top is not None and folder.is_relative_to(top)}
    named = _files_named_in([vars(source), vars(datamodule.features)])
    return {*files, *folders, *(path.absolute() for path in named)}


def _files_named_in(values: Iterable[Any]) -> list[Path]:
    """Files that settings name (a manifest, word vectors)."""
    found = []
    for value in values:
        if isinstance(value, dict):
            found += _files_named_in(value.values())
        elif isinstance(value, (str, Path)) and str(value) and Path(value).is_file():
            found.append(Path(value))
    return found


def _stamp(path: Path) -> list[int] | None:
    """Size and time of modification; None where there is nothing."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return [stat.st_size, stat.st_mtime_ns]
