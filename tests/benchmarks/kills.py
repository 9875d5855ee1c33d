"""Commands that are killed without a warning and said again: `python -m tests.benchmarks.kills --kills 104`.

Each verb runs once undisturbed. Then, again and again on a copy of what it started from, it gets SIGKILL at a moment
drawn from that time, some of them twice, and the same command is said once more. It must end well (else the restart is
*blocked*), leave every file of the undisturbed run with the same numbers in it (else something is *lost*), and leave no
other file (else there is *litter*). A markdown table; exit status 1 if any of these is not 0. Some twenty minutes on
two cores: `reproduce`, which starts programs of its own, takes half of them.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.processes import start

PATIENCE_S, PATIENCE = 600.0, 6.0
"""How long a command may take, and how many times as long as undisturbed a repeated one."""
WEIGHTS = {"prepare": 15, "fit": 15, "probe": 15, "downstream": 12, "export": 15, "report": 15, "compare": 12}
"""Kills of each verb, of 104; the last 5 are of `reproduce`."""
N_REPRODUCE = 5
ONE_SUBJECT = {"n_tune": 2, "n_choose": 1, "n_fit": 2, "n_score": 1, "n_subjects": 1, "n_voxels": 6, "story_minutes": 3}
CLOCK = re.compile(r"second|time|_s$|date|start|speed|pid|host|commit|created|finished|checksum")
"""Columns and keys that differ between two runs of the same numbers."""
RTOL, ATOL = 1e-4, 1e-6
REFUSED = 2
"""Exit status of a command that is refused; `fit` is where the run had finished when it was killed."""


# --- What is run ---


def demo_options(folder: Path) -> list[str]:
    """A small data set that is made offline, and a model that needs no learning first."""
    source = [part for key, value in ONE_SUBJECT.items() for part in (f"--data.source.init_args.{key}", str(value))]
    return [
        *("--data.source", "brainlit.demo.DemoSource", *source, "--data.store_dir", str(folder / "store")),
        *("--model.backbone.weights", "random:tiny", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"),
    ]


def commands(folder: Path) -> dict[str, list[str]]:
    """The command of each verb; each starts from what those above it have left."""
    run, other = folder / "runs" / "kills" / "a", folder / "runs" / "kills" / "b"
    files = ["-c", "experiments/brain_tune.yaml", "-c", "experiments/data/demo.yaml"]
    fit = [*files, *demo_options(folder), "--run.root", str(folder / "runs"), "--run.wandb", "off"]
    fit += ["--run.experiment", "kills"]
    return {
        "prepare": ["data", "prepare", *files, *demo_options(folder)],
        "fit": ["fit", *fit, "--run.id", "a"],
        "second fit": ["fit", *fit, "--run.id", "b", "--data.regime", "permuted"],
        "probe": ["probe", str(run), "--output", str(folder / "probe")],
        "downstream": ["downstream", str(run), "--task", "words"],
        "export": ["export", str(run), "--output", str(folder / "export")],
        "report": ["report", str(run)],
        "compare": ["compare", str(run), str(other), "--output", str(folder / "compared")],
        "reproduce": [
            *("reproduce", "--root", str(folder / "runs"), "--seeds", "0", "--regimes", "brain", "--jobs", "1"),
            *("--", *demo_options(folder), "--run.wandb", "off"),
        ],
    }


# --- What is left ---


def listing(folder: Path) -> set[str]:
    """All files and empty folders below, by their names from here."""
    empty = {path for path in folder.rglob("*") if path.is_dir() and not any(path.iterdir())}
    return {str(path.relative_to(folder)) for path in {*empty, *(p for p in folder.rglob("*") if p.is_file())}}


def numbers(path: Path) -> dict[str, Any]:
    """The numbers in a file, by name, without those of clocks; empty for pictures, pages and logs."""
    return dict(_numbers(path))


def _numbers(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path) as file:
            found: list[tuple[str, Any]] = []
            file.visititems(lambda name, item: found.append((name, item[()])) if hasattr(item, "shape") else None)
        yield from found
    elif path.suffix == ".npz":
        with np.load(path) as file:
            yield from file.items()
    elif path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        yield from load_file(path).items()
    elif path.suffix == ".ckpt":
        import torch

        state = torch.load(path, weights_only=False)["state_dict"]
        yield from ((name, value.numpy()) for name, value in state.items())
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8") as file:
            for k, row in enumerate(csv.DictReader(file)):
                yield from (
                    (f"row {k} {name}", _number(value)) for name, value in row.items() if not CLOCK.search(name)
                )
    elif path.suffix == ".json" and path.name not in ("status.json", "run.json", "provenance.json"):
        yield from _leaves(json.loads(path.read_text(encoding="utf-8")), "")


def _leaves(content: Any, name: str) -> Iterator[tuple[str, Any]]:
    items = content.items() if isinstance(content, Mapping) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        if not CLOCK.search(str(key)):
            yield from _leaves(value, f"{name}/{key}")
    if not isinstance(content, Mapping | list):
        yield name, _number(content)


def _number(value: Any) -> Any:
    try:
        return np.asarray(float(value))
    except (TypeError, ValueError):
        return value


def differences(is_: Path, should: Path) -> list[str]:
    """Files below that have other numbers than they should."""
    return [name for name in sorted(listing(should)) if (is_ / name).is_file() and not _same(is_ / name, should / name)]


def _same(path: Path, should: Path) -> bool:
    one, other = numbers(path), numbers(should)
    if one.keys() != other.keys():
        return False
    for name, value in other.items():
        numeric = isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
        if numeric and not np.allclose(one[name], value, rtol=RTOL, atol=ATOL, equal_nan=True):
            return False
        if not numeric and not np.array_equal(one[name], value):
            return False
    return True


# --- Trials ---


@dataclass
class Tally:
    """Of one verb."""

    seconds: float = 0.0
    kills: int = 0
    too_late: int = 0
    blocked: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)

    @property
    def found(self) -> list[str]:
        """What fell short, in words."""
        return [*self.blocked, *self.lost, *self.litter]

    @property
    def row(self) -> list[str]:
        counts = [len(found) for found in (self.blocked, self.lost, self.litter)]
        return [f"{self.seconds:.0f}", str(self.kills), str(self.too_late), *map(str, counts)]


def trial(verb: str, before: Path, after: Path, tally: Tally, rng: np.random.Generator, place: Path) -> None:
    """Kill once or twice, say it again, and look at what is there."""
    _replace(place, before)
    arguments, log = commands(place)[verb], place.with_name("log.txt")
    log.unlink(missing_ok=True)
    moments: list[str] = []
    for _ in range(1 + int(rng.random() < 0.2)):
        process = start(arguments, log)
        moment, started = float(rng.uniform(0, tally.seconds)), time.monotonic()
        process.join(moment)
        if process.exitcode is not None:
            tally.too_late += 1
            tally.seconds = min(tally.seconds, time.monotonic() - started)
        else:
            process.kill()
            process.join()
            tally.kills += 1
        moments.append(f"{moment:.2f}")
    last = start(arguments, log)
    last.join(max(PATIENCE_S, PATIENCE * tally.seconds))
    what = f"{verb} killed after {' and '.join(moments)} s"
    there, should = listing(place), listing(after)
    gone = sorted(should - there) + differences(place, after)
    had_finished = last.exitcode == REFUSED and not gone  # and says so
    if last.exitcode != 0 and not had_finished:
        last.kill()
        last.join()
        tally.blocked.append(f"{what}: {last.exitcode}\n{log.read_text()[-1500:]}")
        return
    tally.too_late += had_finished
    if gone:
        tally.lost.append(f"{what}: {gone[:8]}")
    if extra := sorted(there - should):
        tally.litter.append(f"{what}: {extra[:8]}")


def _replace(place: Path, source: Path) -> None:
    if place.exists():
        shutil.rmtree(place)
    shutil.copytree(source, place, symlinks=True)


def kills(n_kills: int, seed: int, folder: Path, verbs: Sequence[str]) -> dict[str, Tally]:
    """Run all of it; every trial happens at one place, so that paths in files agree."""
    rng, place = np.random.default_rng(seed), folder / "place"
    place.mkdir(parents=True)
    share = {verb: max(1, round(n * n_kills / 104)) for verb, n in {**WEIGHTS, "reproduce": N_REPRODUCE}.items()}
    tallies = {}
    start(["--version"], folder / "log.txt").join()  # the first start imports
    for verb, arguments in commands(place).items():
        before, after = folder / f"before {verb}", folder / f"after {verb}"
        shutil.copytree(place, before)
        started, log = time.monotonic(), folder / "log.txt"
        undisturbed = start(arguments, log)
        undisturbed.join(PATIENCE_S)
        if undisturbed.exitcode != 0:
            raise RuntimeError(f"{verb} fails when nobody kills it: {log.read_text()[-3000:]}")
        tally = Tally(time.monotonic() - started)
        shutil.copytree(place, after)
        if verb in share and verb in verbs:
            while tally.kills < share[verb]:
                n_found = len(tally.found)
                trial(verb, before, after, tally, rng, place)
                print(f"{verb}: {' '.join(tally.row)}", *tally.found[n_found:], sep="\n", file=sys.stderr, flush=True)
            _replace(place, after)
            tallies[verb] = tally
        shutil.rmtree(before)
    return tallies


def main() -> int:
    """Print the table and what fell short."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=104)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="+", default=[*WEIGHTS, "reproduce"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tallies = kills(given.kills, given.seed, Path(name) / "kills", given.verbs)
    columns = ["command", "s", "kills", "ended before", "blocked", "lost", "litter"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for verb, tally in tallies.items():
        print(f"| {verb} | {' | '.join(tally.row)} |")
    found = [text for tally in tallies.values() for text in tally.found]
    print(f"\n{sum(tally.kills for tally in tallies.values())} kills, seed {given.seed}", *found, sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
