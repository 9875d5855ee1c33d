"""Published weights without a network: a folder of our own first, then the hub's cache, then the hub itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from brainlit.places import cache_dir

T = TypeVar("T")

WEIGHTS_VARIABLE = "BRAINLIT_WEIGHTS"
NEEDED_FILES = "config.json, model.safetensors (or pytorch_model.bin) and preprocessor_config.json"
PROBE_TIMEOUT_S = 4.0


class WeightsError(ValueError):
    """Weights that are not there, or are another model's."""


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
        return get(True)
    except (OSError, ValueError) as error:
        if Path(location).is_dir():
            raise _unreadable(location, error) from error
        obstacle = why_unreachable()
        if obstacle is not None:
            raise _not_here(location, obstacle) from error
    try:
        return get(False)
    except (OSError, ValueError) as error:
        raise _not_here(location, _first_line(error)) from error


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


def _unreadable(folder: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"could not read the weights in {folder}: {_first_line(error)} It needs {NEEDED_FILES}; save them again with"
        " save_pretrained, or download them again."
    )


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
