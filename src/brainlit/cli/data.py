"""`brainlit data prepare|check|info`: a story store, given as a folder or as the config that makes it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from brainlit.cli.errors import UsageError

DESCRIPTION = """\
prepare builds the store (or sees that it is there), check reads every byte of it and says what is wrong,
info describes it.
"""


def main(arguments: Sequence[str]) -> int:
    """Run one of the three; 1 if check finds an error.

    Parameters
    ----------
    arguments : sequence of str
        The action, then a store's folder, a config file, or the options of `brainlit fit`.
    """
    parser = argparse.ArgumentParser(
        prog="brainlit data",
        description=DESCRIPTION,
        epilog="Instead of STORE_OR_CONFIG, the options of `brainlit fit` may follow: -c FILE, --data.subjects [..].",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("prepare", "check", "info"))
    parser.add_argument("where", metavar="STORE_OR_CONFIG", nargs="?", help="folder of a store, or a config file")
    given, options = parser.parse_known_args(list(arguments))
    if given.where is None and not options:
        raise UsageError(f"brainlit data {given.action} needs a store's folder or a config: experiments/data/demo.yaml")
    if given.where is not None and Path(given.where).is_dir():
        return _act(given.action, Path(given.where))
    config = [] if given.where is None else ["-c", given.where]
    return _act(given.action, _prepared([*config, *options], build=given.action == "prepare"))


def _prepared(options: list[str], build: bool) -> Path:
    """The store's folder as the options say; built first if asked for."""
    from brainlit.cli.training import parsed_datamodule

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    datamodule = parsed_datamodule(options)
    if build:
        datamodule.prepare_data()
    return Path(datamodule.store_dir)


def _act(action: str, store: Path) -> int:
    from brainlit.store import check_store, describe_store
    from brainlit.store.check import exit_code, findings_text
    from brainlit.store.describe import description_text

    if not (store / "store.json").is_file():
        raise FileNotFoundError(f"there is no finished store at {store}. Build it: brainlit data prepare CONFIG")
    if action == "prepare":
        print(f"The store is ready: {store}")
    elif action == "info":
        print(description_text(describe_store(store)))
    else:
        findings = check_store(store)
        print(findings_text(findings))
        return exit_code(findings)
    return 0
