"""Weights of published models: from a folder, the hub's cache or the hub, or random; and what is kept in the cache.

A folder of our own comes first, then the hub's cache, then the hub itself. Nothing here knows a family.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import torch

from brainlit.files import contents_damage, to_disk, write_contents
from brainlit.paths import cache_dir
from brainlit.weight_files import folder_damage, is_from_readers_of_weights, numbers_damage, what_readers_say

log = logging.getLogger(__name__)
T = TypeVar("T")

WEIGHTS_VARIABLE = "BRAINLIT_WEIGHTS"
NEEDED_FILES = "config.json, model.safetensors (or pytorch_model.bin) and preprocessor_config.json"
PROBE_TIMEOUT_S = 4.0
RANDOM_PREFIX = "random:"
MAY_BE_MISSING = ("masked_spec_embed",)


class WeightsError(ValueError):
    """Weights that are not there, or are another model's."""


# --- Folders that are expensive to make and cheap to keep, one per set of settings ---


def cached_folder(kind: str, settings: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder that these settings make; built if it is not there, or not whole.

    A second process waits for the first. The folder appears under its name only when it is complete, with a list of
    its files' SHA-256 that is checked at every use, so a damaged one is made again.

    Parameters
    ----------
    kind : str
        First part of the folder's name.
    settings : mapping of plain JSON values
        All that decides what is in the folder.
    build : callable
        Fills the empty folder that it is given.
    """
    from filelock import FileLock

    parent = cache_dir()
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"{kind}-{settings_key(settings)}"
    _sweep_asides(parent)
    with FileLock(parent / f"{folder.name}.lock"):
        if folder.exists():
            damage = contents_damage(folder)
            if damage is None:
                return folder
            log.warning("%s is damaged (%s); making it again", folder, damage)
            shutil.rmtree(folder)
        _build_aside(folder, settings, build)
    return folder


def settings_key(settings: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of the settings, in whatever order they are given."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _sweep_asides(parent: Path) -> None:
    """Remove what processes that were killed had begun to build; whoever builds holds the lock of its folder."""
    from filelock import FileLock, Timeout

    for aside in parent.glob(".*-????????"):
        name = aside.name[1:].rpartition("-")[0]
        if not aside.is_dir() or not (parent / f"{name}.lock").is_file():
            continue
        try:
            with FileLock(parent / f"{name}.lock", timeout=0):
                log.warning("removing %s, left by a process that was killed", aside)
                shutil.rmtree(aside, ignore_errors=True)
        except Timeout:
            log.debug("%s is being built", aside)


def _build_aside(folder: Path, settings: Mapping[str, Any], build: Callable[[Path], None]) -> None:
    """Build under a temporary name, list the contents, put everything on disk, rename."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        build(aside)
        write_contents(aside, {"settings": dict(settings)})
        for path in aside.rglob("*"):
            to_disk(path)
        aside.chmod(0o755)
        aside.replace(folder)
        to_disk(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


# --- Published weights, with or without a network ---


def weights_dir() -> Path:
    """Where weights that were copied here by hand are looked for: $BRAINLIT_WEIGHTS, else the cache's `weights`."""
    return Path(os.environ.get(WEIGHTS_VARIABLE) or cache_dir() / "weights").expanduser()


def local_folder(hub_id: str) -> Path:
    """The folder for a hub id, `<weights_dir>/<org>/<name>`; whether it is there or not."""
    return weights_dir() / hub_id


def commit_of(location: str) -> str | None:
    """The hub's commit of files that are here; None for folders that did not come from the hub.

    Parameters
    ----------
    location : str
        A folder, where `hf download --local-dir` leaves a note of it, or the id of a model in the hub's cache.
    """
    from huggingface_hub import try_to_load_from_cache

    if Path(location).is_dir():
        note = Path(location) / ".cache" / "huggingface" / "download" / "config.json.metadata"
        return note.read_text().split("\n", 1)[0].strip() or None if note.is_file() else None
    cached = try_to_load_from_cache(location, "config.json")
    return Path(cached).parent.name if isinstance(cached, str) else None


def fetch(location: str, get: Callable[[bool], T]) -> T:
    """What `get(local_files_only)` finds in a folder or in the hub's cache; for a hub id, otherwise on the hub.

    A hub that cannot be reached is found out in seconds, where the hub's client would try again for half a minute.

    Parameters
    ----------
    location : str
        Folder or hub id.
    get : callable
        Raises OSError if something is missing.

    Raises
    ------
    WeightsError
        If it is not there; says what to run where there is a network, and where to put the files.
    """
    try:
        return _readable(location, lambda: get(True))
    except (OSError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        if Path(location).is_dir():
            raise WeightsError(
                f"could not read the weights in {location}: {_first_line(error)} It needs {NEEDED_FILES}; save them"
                " again with save_pretrained, or download them again."
            ) from error
        obstacle = why_unreachable()
        if obstacle is not None:
            raise _not_here(location, obstacle) from error
    try:
        return _readable(location, lambda: get(False))
    except (OSError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise _not_here(location, _first_line(error)) from error


def _readable(location: str, get: Callable[[], T]) -> T:
    """What get() returns; files that are there and cannot be read become a WeightsError."""
    try:
        return get()
    except Exception as error:
        if isinstance(error, (OSError, ValueError)) or not is_from_readers_of_weights(error):
            raise
        folder = _folder_of(location)
        damage = (folder_damage(folder) if folder else None) or what_readers_say(error)
        raise WeightsError(f"could not read the weights in {folder or location}: {damage}") from error


def _folder_of(location: str) -> Path | None:
    """The folder itself, or that of a hub id in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    if Path(location).is_dir():
        return Path(location)
    cached = try_to_load_from_cache(location, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None


def why_unreachable(timeout_s: float = PROBE_TIMEOUT_S) -> str | None:
    """Why the hub, or the proxy on the way to it, cannot be reached, in words; None if it answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, so the hub is not asked."
    hub = urlsplit(constants.ENDPOINT)
    proxies = getproxies()
    proxy = proxies.get(hub.scheme, proxies.get("all"))
    target = urlsplit(proxy) if proxy and not proxy_bypass(hub.hostname or "") else hub
    address = (target.hostname or "", target.port or (443 if target.scheme == "https" else 80))
    try:
        socket.create_connection(address, timeout=timeout_s).close()
    except OSError as error:
        return f"{address[0]} cannot be reached ({error})."
    return None


def _not_here(hub_id: str, reason: str) -> WeightsError:
    folder = local_folder(hub_id)
    return WeightsError(
        f"could not get weights {hub_id!r} from the model hub: {reason} They are not in {folder} either. On a machine"
        f" that reaches the hub, run `hf download {hub_id} --local-dir {folder}`, and copy that folder to the same"
        f" place here; what is needed of it is {NEEDED_FILES}. ${WEIGHTS_VARIABLE} chooses another place than"
        f" {weights_dir()}. Weights 'tiny' need no download at all."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# --- Models ---


def find_checkpoint(location: str, model_type: str) -> tuple[str, dict[str, Any]]:
    """A folder or hub id that holds the family asked for, as `from_pretrained` understands it, and its config.json.

    Parameters
    ----------
    location : str
        A save_pretrained folder, or a hub id.
    model_type : str
        What config.json must say: 'wav2vec2' for the wav2vec family.

    Raises
    ------
    WeightsError
        If there is no such folder, the hub has no such model or cannot be reached, or the model is another family's.
    """
    from transformers import PretrainedConfig

    folder = Path(location).expanduser()
    if folder.is_dir():
        location = str(folder)
        if not (folder / "config.json").is_file():
            raise WeightsError(
                f"{folder} has no config.json, so it is no save_pretrained folder; name the folder in it."
            )
        if damage := folder_damage(folder):
            raise WeightsError(f"could not read the weights in {folder}: {damage}")
    elif folder.exists() or location.startswith(("/", ".", "~")) or location.count("/") > 1:
        raise WeightsError(f"weights {location!r}: there is no such folder. Give a folder written by save_pretrained.")
    settings, _ = fetch(location, lambda local: PretrainedConfig.get_config_dict(location, local_files_only=local))
    found = settings.get("model_type")
    if found != model_type:
        raise WeightsError(
            f"weights {location!r} are a {found!r} model, and this family needs {model_type!r}; choose the family that"
            " fits the weights, or other weights."
        )
    return location, settings


def load_checkpoint(
    model_class: Any, location: str, config: Any, may_lack: tuple[str, ...] = ()
) -> tuple[Any, tuple[str, ...]]:
    """The model in fp32 and eval mode, and which parts of may_lack its files have not; all else comes from the files.

    Parameters
    ----------
    model_class : class of transformers
        For instance Wav2Vec2Model.
    location : str
        As find_checkpoint gives it.
    config : its configuration
        With the switches as they are wanted.
    may_lack : tuple of str
        Parts of the model that never run ('decoder'); one that is not in the files at all starts at random.

    Raises
    ------
    WeightsError
        If the files are missing, damaged or cannot be fetched, lack parameters of the model, have them in other shapes
        than config.json says, or hold numbers that are none.
    """
    options = {"config": config, "dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, report = fetch(
            location,
            lambda local: model_class.from_pretrained(location, local_files_only=local, **options),
        )
    if report["mismatched_keys"]:
        name, found, wanted = sorted(report["mismatched_keys"])[0]
        raise WeightsError(
            f"weights {location!r} have other shapes than config.json says: {name!r} is {tuple(found)} in the file and"
            f" {tuple(wanted)} by the config ({len(report['mismatched_keys'])} such parameters). Take both files from"
            " the same model."
        )
    lacks = tuple(part for part in may_lack if _lacks_all_of(model, part, set(report["missing_keys"])))
    absent = tuple(f"{part}." for part in lacks)
    missing = sorted(
        key for key in report["missing_keys"] if not key.endswith(MAY_BE_MISSING) and not key.startswith(absent)
    )
    if missing:
        raise WeightsError(
            f"weights {location!r} lack {len(missing)} parameters of {model_class.__name__}, for instance"
            f" {missing[0]!r}; they would start at random. Use a complete checkpoint, or say"
            f" {RANDOM_PREFIX}{location} if random weights are wanted."
        )
    if damage := numbers_damage(model):
        raise WeightsError(f"weights {location!r} are damaged: {damage}. Download them again, or use other weights.")
    return model.eval(), lacks


def _lacks_all_of(model: Any, part: str, missing: set[str]) -> bool:
    return all(name in missing for name, _ in model.named_parameters() if name.startswith(f"{part}."))


def random_model(model_class: Any, config: Any, seed: int) -> Any:
    """The architecture with random weights, in eval mode; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).eval()
