"""How a process stands to W&B: whether it is logged in, and that W&B says nothing while it is used."""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

_log = logging.getLogger(__name__)

SILENT = "WANDB_SILENT"


def wandb_mode(environ: Mapping[str, str] | None = None) -> str:
    """'online' where the user is logged in, else 'offline'; WANDB_MODE decides where it is set. Asks nothing."""
    env = os.environ if environ is None else environ
    if env.get("WANDB_MODE"):
        return "offline" if env["WANDB_MODE"] == "dryrun" else env["WANDB_MODE"]
    return "online" if is_logged_in(env) else "offline"


def is_logged_in(environ: Mapping[str, str]) -> bool:
    """Whether WANDB_API_KEY is set, or the netrc file names the W&B host (WANDB_BASE_URL, api.wandb.ai)."""
    return bool(environ.get("WANDB_API_KEY")) or _netrc_names_wandb(environ)


@contextmanager
def silence() -> Iterator[None]:
    """W&B says nothing in this block, nor does its login, which speaks before it looks at the settings of a run.

    The login goes by WANDB_SILENT, which W&B reads once in a process. The variable, and what W&B made of it, are
    afterwards as they were.
    """
    from wandb.sdk import wandb_setup

    said, earlier = os.environ.get(SILENT), wandb_setup.singleton().settings_if_loaded
    os.environ.setdefault(SILENT, "true")
    shared = wandb_setup.singleton().settings
    was_silent = shared.silent and (said is not None or earlier is not None)
    _be_silent(True)
    try:
        yield
    finally:
        if said is None:
            os.environ.pop(SILENT, None)
        _be_silent(was_silent)


def _be_silent(silent: bool) -> None:
    import wandb
    from wandb.sdk import wandb_setup

    shared = wandb_setup.singleton().settings
    shared.silent = silent
    wandb.termsetup(shared, None)


def _netrc_names_wandb(env: Mapping[str, str]) -> bool:
    home = Path(env.get("HOME") or Path.home())
    host = urlsplit(env.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    for path in [Path(env["NETRC"])] if env.get("NETRC") else [home / ".netrc", home / "_netrc"]:
        if path.is_file():
            try:
                return netrc.netrc(str(path)).authenticators(host) is not None
            except (netrc.NetrcParseError, OSError) as error:
                _log.warning("cannot read %s (%s); W&B runs offline. Set WANDB_MODE=online to override.", path, error)
    return False
