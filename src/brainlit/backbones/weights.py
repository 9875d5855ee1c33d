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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import torch

from brainlit.backbones.addresses import (
    RANDOM_PREFIX,
    WEIGHTS_VARIABLE,
    Address,
    WeightsError,
    at_commit,
    download_command,
    local_folder,
    weights_dir,
)
from brainlit.backbones.state_dicts import (
    Renaming,
    find_renaming,
    is_nested,
    lacking,
    read_names,
    read_state,
    refuse_adapters,
)
from brainlit.files import contents_damage, is_temporary, share, temporary_beside, to_disk, write_contents
from brainlit.paths import cache_dir
from brainlit.weight_files import (
    folder_damage,
    is_from_readers_of_weights,
    numbers_damage,
    what_readers_say,
    without_bars,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

NEEDED_FILES = "config.json, model.safetensors (or pytorch_model.bin) and preprocessor_config.json"
PROBE_TIMEOUT_S = 4.0
MAY_BE_MISSING = ("masked_spec_embed",)


class UnreachableHubError(WeightsError):
    """Weights that are not here, and a hub that cannot be asked."""


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
    if os.access(parent, os.W_OK):
        _sweep_asides(parent)
    lock = FileLock(parent / f"{folder.name}.lock")
    try:
        lock.acquire()
    except OSError:
        if folder.is_dir() and contents_damage(folder) is None:  # a cache that may only be read
            return folder
        raise
    try:
        if folder.exists():
            damage = contents_damage(folder)
            if damage is None:
                return folder
            log.warning("%s is damaged (%s); making it again", folder, damage)
            shutil.rmtree(folder)
        _build_aside(folder, settings, build)
    finally:
        lock.release()
    return folder


def settings_key(settings: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of the settings, in whatever order they are given."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _sweep_asides(parent: Path) -> None:
    """Remove what processes that were killed had begun to build; whoever builds holds the lock of its folder."""
    from filelock import FileLock, Timeout

    for aside in filter(is_temporary, parent.iterdir()):
        name = aside.name[1:].rsplit(".", 2)[0]
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
    aside = temporary_beside(folder)
    aside.mkdir()
    try:
        build(aside)
        write_contents(aside, {"settings": dict(settings)})
        for path in aside.rglob("*"):
            if path.is_file():
                share(path)
            to_disk(path)
        aside.replace(folder)
        to_disk(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


# --- Published weights, with or without a network ---


def fetch(address: Address, get: Callable[[bool], T]) -> T:
    """What `get(local_files_only)` finds in a folder or in the hub's cache; for a hub id, otherwise on the hub.

    A hub that cannot be reached is found out in seconds, where the hub's client would try again for half a minute.

    Parameters
    ----------
    address : Address
    get : callable
        Raises OSError if something is missing.

    Raises
    ------
    WeightsError
        If it is not there; says what to run where there is a network, and where to put the files.
    """
    try:
        return _readable(address, lambda: get(True))
    except (OSError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        if address.is_folder:
            raise WeightsError(
                f"could not read the weights in {address.place}: {_first_line(error)} It needs {NEEDED_FILES}; save"
                " them again with save_pretrained, or download them again."
            ) from error
        obstacle = why_unreachable()
        if obstacle is not None:
            raise UnreachableHubError(_not_here(address, obstacle)) from error
    try:
        return _readable(address, lambda: get(False))
    except (OSError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(_not_here(address, _first_line(error))) from error


def _readable(address: Address, get: Callable[[], T]) -> T:
    """What get() returns; files that are there and cannot be read become a WeightsError."""
    try:
        return get()
    except Exception as error:
        if isinstance(error, (OSError, ValueError)) or not is_from_readers_of_weights(error):
            raise
        folder = address.folder
        damage = (folder_damage(folder) if folder else None) or what_readers_say(error)
        raise WeightsError(f"could not read the weights in {folder or address}: {damage}") from error


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


def _not_here(address: Address, reason: str) -> str:
    hub_id, folder = address.location, local_folder(address.location, address.revision)
    other = local_folder(hub_id)
    beside = (
        f" {other} is there, and nothing in it says that it is of revision {address.revision!r}."
        if address.revision is not None and other.is_dir()
        else ""
    )
    return (
        f"could not get weights {str(address)!r} from the model hub: {reason} They are not in {folder} either.{beside}"
        f" On a machine that reaches the hub, run {download_command(address)}, and copy that folder to the same"
        f" place here; what is needed of it is {NEEDED_FILES}. ${WEIGHTS_VARIABLE} chooses another place than"
        f" {weights_dir()}. Weights 'tiny' need no download at all."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# --- Models ---


def find_checkpoint(address: Address, model_type: str) -> tuple[Address, dict[str, Any]]:
    """A model's address by its commit, so that all else is read from the same state of the hub, and its config.json.

    Parameters
    ----------
    address : Address
        Of a save_pretrained folder, or of a model on the hub.
    model_type : str
        What config.json must say: 'wav2vec2' for the wav2vec family.

    Raises
    ------
    WeightsError
        If there is no such folder, the hub has no such model or cannot be reached, or the model is another family's.
    """
    from transformers import PretrainedConfig

    if address.is_folder:
        folder = Path(address.place)
        if not (folder / "config.json").is_file():
            raise WeightsError(
                f"{folder} has no config.json, so it is no save_pretrained folder; name the folder in it."
            )
        if damage := folder_damage(folder):
            raise WeightsError(f"could not read the weights in {folder}: {damage}")
    settings, _ = fetch(
        address,
        lambda local: PretrainedConfig.get_config_dict(address.place, local_files_only=local, **address.options),
    )
    found = settings.get("model_type")
    if found != model_type:
        raise WeightsError(
            f"weights {str(address)!r} are a {found!r} model, and this family needs {model_type!r}; choose the family"
            " that fits the weights, or other weights."
        )
    return at_commit(address), settings


def load_checkpoint(
    model_class: Any, address: Address, config: Any, may_lack: tuple[str, ...] = ()
) -> tuple[Any, dict[str, Any]]:
    """The model in fp32 and eval mode, all from its files, and what about them has to be remembered.

    Parameters
    ----------
    model_class : class of transformers
        For instance Wav2Vec2Model.
    address : Address
        As find_checkpoint gives it.
    config : its configuration
        With the switches as they are wanted.
    may_lack : tuple of str
        Parts of the model that never run ('decoder'); one that is not in the files at all starts at random.

    Returns
    -------
    model
    notes : dict
        lacks: the parts of may_lack that the files have not. prefix: what all names in the file begin with.

    Raises
    ------
    WeightsError
        If the files are missing, damaged or cannot be fetched, lack parameters of the model, have them in other shapes
        than config.json says, or hold numbers that are none.
    """
    options = {"config": config, "dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, report, renaming = _from_files(model_class, address, options, may_lack)
    if report["mismatched_keys"]:
        name, found, wanted = sorted(report["mismatched_keys"])[0]
        raise WeightsError(
            f"weights {str(address)!r} have other shapes than config.json says: {name!r} is {tuple(found)} in the file"
            f" and {tuple(wanted)} by the config ({len(report['mismatched_keys'])} such parameters). Take both files"
            " from the same model."
        )
    lacks = [part for part in may_lack if _lacks_all_of(model, part, set(report["missing_keys"]))]
    absent = tuple(f"{part}." for part in lacks)
    lacks = [part for part in lacks if not part.startswith(absent)]  # what is inside another goes without saying
    missing = [key for key in report["missing_keys"] if not key.endswith(MAY_BE_MISSING) and not key.startswith(absent)]
    if missing:
        raise _lacking_error(address, model, _needed(model, may_lack) | set(missing))
    if damage := numbers_damage(model):
        raise WeightsError(
            f"weights {str(address)!r} are damaged: {damage}. Download them again, or use other weights."
        )
    notes: dict[str, Any] = {"lacks": lacks, "prefix": renaming.removed}
    return model.eval(), {key: value for key, value in notes.items() if value}


def _from_files(
    model_class: Any, address: Address, options: Mapping[str, Any], may_lack: tuple[str, ...]
) -> tuple[Any, dict[str, Any], Renaming]:
    """The model and what transformers says of its parameters; a second time where a wrapper changed their names."""

    def get(local: bool) -> tuple[Any, dict[str, Any]]:
        found: tuple[Any, dict[str, Any]] = model_class.from_pretrained(
            address.place, local_files_only=local, **address.options, **options
        )
        return found

    try:
        with _without_report(), without_bars():
            model, report = fetch(address, get)
    except WeightsError:
        if address.folder is None or not is_nested(address.folder):
            raise
        model = model_class(options["config"])
        report = {"missing_keys": _needed(model, may_lack)}
    missing = _needed(model, may_lack) & set(report["missing_keys"])
    if not missing:
        return model, report, Renaming()
    folder = address.folder
    assert folder is not None, "what was read is here"
    names = read_names(folder)
    refuse_adapters(names, str(address))
    renaming = find_renaming(names, _needed(model, may_lack), str(address))
    if renaming is None:
        raise _lacking_error(address, model, _needed(model, may_lack))
    log.info("%s: names of parameters were read %s", address, renaming)
    state = {new: value for name, value in read_state(folder).items() if (new := renaming(name)) is not None}
    with without_bars():
        model, report = model_class.from_pretrained(None, state_dict=state, **options)
    return model, report, renaming


@contextmanager
def _without_report() -> Iterator[None]:
    """transformers' table of missing parameters is not shown: what it would make up is refused here, or found."""
    logger = logging.getLogger("transformers.modeling_utils")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _needed(model: Any, may_lack: tuple[str, ...]) -> set[str]:
    """Parameters that have to be in the files."""
    idle = tuple(f"{part}." for part in may_lack)
    names = (name for name, _ in model.named_parameters())
    return {name for name in names if not name.endswith(MAY_BE_MISSING) and not name.startswith(idle)}


def _lacking_error(address: Address, model: Any, needed: set[str]) -> WeightsError:
    assert address.folder is not None, "what was read is here"
    missing, words = lacking(read_names(address.folder), needed)
    return WeightsError(
        f"weights {str(address)!r} lack {len(missing)} parameters of {type(model).__name__}, for instance"
        f" {missing[0]!r}; they would start at random. {words}. Use a complete checkpoint, or say"
        f" {RANDOM_PREFIX}{address} if random weights are wanted."
    )


def _lacks_all_of(model: Any, part: str, missing: set[str]) -> bool:
    """Whether a part has parameters, and all are missing; one that is tied to another part's is not."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False) if name.startswith(f"{part}.")]
    return bool(names) and all(name in missing for name in names)


def random_model(model_class: Any, config: Any, seed: int) -> Any:
    """The architecture with random weights, in eval mode; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).eval()
