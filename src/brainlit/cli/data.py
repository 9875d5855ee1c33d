"""`brainlit data download|prepare|check|info`: raw files, and the story store that is made from them.

Which command found which store in order is remembered, so that saying it again needs no Lightning.
The memory is a hint: where anything that could change the answer differs (arguments, config files, environment, any
source file or its folder, the store, this software), the command takes the long way and finds out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import brainlit
from brainlit.cli import lean
from brainlit.cli.config_names import expanded
from brainlit.cli.errors import UsageError
from brainlit.cli.option_hints import OwnParser
from brainlit.files import write_json
from brainlit.guard import read_json
from brainlit.hints import did_you_mean
from brainlit.paths import cache_dir
from brainlit.store import (
    StoreError,
    StoryStore,
    check_store,
    describe_store,
    description_text,
    exit_code,
    findings_json,
    findings_text,
)

if TYPE_CHECKING:
    from brainlit.datamodules import StoryDataModule
    from brainlit.stories import StorySource

_ENVIRONMENT = re.compile(r"oc\.env:\s*([A-Za-z_]\w*)")
HELP = """\
usage: brainlit data ACTION STORE_OR_CONFIG [options]

  download   fetch the raw files that a published data set needs:
               brainlit data download lebel2023 --data.subjects [UTS03] --dry-run
  prepare    build the story store from them, or see that it is there:
               brainlit data prepare demo
  check      read every byte of a store and say what is wrong:
               brainlit data check data/store/demo-0
  info       say what a store holds:
               brainlit data info demo

STORE_OR_CONFIG is the folder of a store, or a config file or its name; the options of `brainlit fit` may follow or
stand in its place: -c FILE, --data.subjects [..]. brainlit data ACTION --help says more.
"""
EXAMPLES = {
    "download": """\
examples:
  brainlit data download lebel2023 --data.subjects [UTS03] --dry-run
  brainlit data download -c lebel2023 --data.subjects [UTS03]
  AWS_ENDPOINT_URL_S3=https://mirror.example.org brainlit data download lebel2023

Sizes, free disk and licence are said before anything is fetched. What was interrupted is continued, what is whole is
left alone. --data.subjects [..] fetches what these subjects need, and no more.

exit status: 0 all files are there and verified (or --dry-run), 2 some could not be fetched (the others stay) or wrong
use, 130 interrupted.
""",
    "prepare": """\
examples:
  brainlit data prepare demo
  brainlit data prepare -c lebel2023 --data.subjects [UTS03] --download

exit status: 0 the store is ready, 2 wrong use, or wrong or missing data, 130 interrupted.
""",
    "check": """\
examples:
  brainlit data check data/store/demo-0
  brainlit data check demo --json | jq '.[] | select(.level == "error")'

exit status: 0 no error (there may be warnings), 1 an error was found, 2 there is no store, or wrong use.
""",
    "info": """\
examples:
  brainlit data info data/store/demo-0
  brainlit data info demo --json | jq .voxels

exit status: 0 the store was described, 2 there is no store, or wrong use.
""",
}


def main(arguments: Sequence[str]) -> int:
    """Run one of the four; returns the exit status that its --help says.

    Parameters
    ----------
    arguments : sequence of str
        The action, then a store's folder, a config file, or the options of `brainlit fit`.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if arguments else 2
    action, *rest = arguments
    if action not in EXAMPLES:
        raise UsageError(f"there is no `brainlit data {action}`. {did_you_mean(action, EXAMPLES)}")
    given, options = _parser(action).parse_known_args(rest)
    where = options.pop(0) if options and not options[0].startswith("-") else None
    if where is None and not options:
        raise UsageError(f"brainlit data {action} needs a store's folder or a config: brainlit data {action} demo")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if where is not None and Path(where).is_dir():
        return _of_store(action, Path(where), given)
    return _of_config(action, options if where is None else [*expanded(["-c", where]), *options], given)


def _parser(action: str) -> OwnParser:
    """The options of an action itself; what it does not know goes to the parser of `brainlit fit`."""
    from brainlit.stories.download.transfer import ON_DIFFERENCE

    where = "CONFIG" if action in ("download", "prepare") else "STORE_OR_CONFIG"
    parser = OwnParser(
        prog=f"brainlit data {action}",
        usage=f"brainlit data {action} {where} [options] [options of brainlit fit]",
        epilog=EXAMPLES[action],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if action in ("check", "info"):
        parser.add_argument("--json", action="store_true", help="write JSON on stdout, for programs")
    if action == "prepare":
        parser.add_argument("--download", action="store_true", help="fetch files that are missing and published first")
    if action == "download":
        parser.add_argument("--dry-run", action="store_true", help="say what would be fetched, and fetch nothing")
        parser.add_argument("--no-progress", action="store_true", help="no progress bar")
        parser.add_argument("--endpoint-url", help="another S3 service than Amazon's (also AWS_ENDPOINT_URL_S3)")
        parser.add_argument(
            "--on-difference",
            choices=ON_DIFFERENCE,
            default="refuse",
            help="local files that differ from the published ones and are not from an earlier download:"
            " an error (the default), kept, or replaced",
        )
    return parser


def _of_store(action: str, store: Path, given: argparse.Namespace) -> int:
    """What can be done with a store by itself."""
    if action == "download":
        raise UsageError(f"{store} is a folder; brainlit data download needs the config of a data set.")
    if not (store / "store.json").is_file():
        raise FileNotFoundError(f"there is no finished store at {store}. Build it: brainlit data prepare CONFIG")
    if action == "prepare":
        print(f"The store is ready: {store}")
        return 0
    if action == "check":
        findings = check_store(store)
        print(findings_json(findings) if given.json else findings_text(findings))
        return exit_code(findings)
    description = describe_store(store)
    print(json.dumps(description, indent=2) if given.json else description_text(description))
    return 0


def _of_config(action: str, options: list[str], given: argparse.Namespace) -> int:
    if action == "download":
        return _download(options, given)
    store = _prepared(options, given.download) if action == "prepare" else Path(_datamodule(action, options).store_dir)
    return _of_store(action, store, given)


def _prepared(options: list[str], download: bool) -> Path:
    """The store of a config, built if it is not there; known at once if this very command found it in order before.

    Files that are missing and published are fetched if `download` says so, and only where the store needs them.
    """
    known = known_store(options)
    if known is not None:
        return known
    datamodule = _datamodule("prepare", options)
    try:
        datamodule.prepare_data()
    except FileNotFoundError as error:
        hint = _download_hint(datamodule.source, options)
        if not (download and hint):
            raise FileNotFoundError(f"{error}{hint}") from error
        _fetch(datamodule.source, _parser("download").parse_args([]))
        datamodule.prepare_data()
    remember_store(options, datamodule)
    return Path(datamodule.store_dir)


def _download_hint(source: StorySource, options: list[str]) -> str:
    """What to do about missing files, if they are published; else nothing."""
    from brainlit.stories.download import missing_locally

    remote = source.remote()
    missing = missing_locally(remote) if remote is not None else []
    if remote is None or not missing:
        return ""
    return (
        f"\n{len(missing)} of {len(remote.paths)} files of the data set are not in {remote.root} ({missing[0]}, ...)."
        f" They are published: brainlit data download {shlex.join(options)}"
    )


def _download(options: list[str], given: argparse.Namespace) -> int:
    source = _datamodule("download", options).source
    if source.remote() is None:
        raise UsageError(
            f"there is nothing to download for {source.name!r} ({type(source).__name__}): its files are not published"
            " as such, or it reads none. If it has a card, data/<name>.md, that says where they come from."
        )
    _fetch(source, given)
    return 0


def _fetch(source: StorySource, given: argparse.Namespace) -> None:
    """Download what the source needs and say what was done."""
    from brainlit.stories.download import download

    logging.getLogger("botocore").setLevel(logging.WARNING)
    remote = source.remote()
    assert remote is not None
    report = download(
        remote,
        dry_run=given.dry_run,
        progress=not given.no_progress,
        endpoint_url=given.endpoint_url,
        on_difference=given.on_difference,
    )
    print(report.text())


def _datamodule(action: str, options: list[str]) -> StoryDataModule:
    """The data module that the options describe; Lightning is loaded here and no earlier."""
    lean.import_lightning()
    from brainlit.cli.probe_options import parsed_datamodule

    return parsed_datamodule(options, _parser(action).known_keys())


# --- Stores that were found in order ---


def known_store(arguments: Sequence[str]) -> Path | None:
    """The store that the same command found in order, if nothing has changed since; None where that is not sure."""
    try:
        memory = read_json(_memory(arguments), "what a command remembers", "")
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
    own = [*map(source.story_files, source.story_names()), *map(source.subject_files, source.subject_names())]
    files = [path.absolute() for part in own for path in part]
    top = Path(os.path.commonpath([path.parent for path in files])) if files else None
    folders = {folder for path in files for folder in path.parents if top is not None and folder.is_relative_to(top)}
    named = _files_named_in([vars(source), vars(datamodule.features)])
    return {*files, *folders, *(path.absolute() for path in named)}


def _files_named_in(values: Iterable[Any]) -> list[Path]:
    """Files that settings name (a manifest, word vectors)."""
    from brainlit.stories import StorySource

    found = []
    for value in values:
        if isinstance(value, dict):
            found += _files_named_in(value.values())
        elif isinstance(value, StorySource):  # a source within a source
            found += _files_named_in(vars(value).values())
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
