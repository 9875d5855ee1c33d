"""What damage to a file does: `python -m tests.benchmarks.faults --flips 1000 --inputs 2000 --seed 0`.

Every file that brainlit writes, and examples of those that it reads, are damaged and read again. First table: single
flipped bits by kind of file; a flip is refused, harmless (the same was read, bit for bit) or used in silence, which
must not happen where something can tell. Second table: files cut off, flipped, emptied or replaced, over all readers;
what is not refused in words, with the file's name, is a fault. Each is read in another process, with a time limit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from tests.flips import flipped, flips

LIMIT_S = 30.0
SAME, OTHER, REFUSED, NAMELESS, TRACEBACK, HANG, CRASH = (
    *("harmless", "silent", "refused"),
    *("no file name", "traceback", "hang", "crash"),
)
COLUMNS = (REFUSED, SAME, OTHER, NAMELESS, TRACEBACK, HANG, CRASH)


class Reader:
    """Reads files in a process of its own; one that hangs or dies costs that process only."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.join()

    def read(self, kind: str, path: Path, expected: str | None = None) -> tuple[str, str]:
        """What became of one file, and the digest or the message."""
        self._pipe.send((kind, str(path)))
        try:
            if not self._pipe.poll(LIMIT_S):
                self._restart()
                return HANG, f"longer than {LIMIT_S:g} s"
            outcome, said = self._pipe.recv()
        except (EOFError, ConnectionError):
            code = self._restart()
            return CRASH, f"exit {code}"
        return (SAME if said == expected else OTHER, said) if outcome == SAME else (outcome, said)

    def expected(self, kind: str, path: Path) -> str:
        """The digest of a file before anything is done to it."""
        outcome, said = self.read(kind, path)
        if outcome != OTHER:
            raise RuntimeError(f"{kind} as it was written cannot be read: {outcome}, {said}")
        return said

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it has imported what it needs, which may take long

    def _restart(self) -> int | None:
        self._process.kill()
        self._process.join()
        self._start()
        return self._process.exitcode


def _serve(pipe: Connection) -> None:
    """Read what is asked for, in the process of its own."""
    import logging
    import warnings

    import brainlit.cli.errors
    import brainlit.tuning.checkpoint  # noqa: F401 - reading must not wait for imports
    from tests.benchmarks.fault_kinds import KINDS, digest

    logging.disable()
    warnings.simplefilter("ignore")
    pipe.send("ready")
    while True:
        kind, name = pipe.recv()
        try:
            pipe.send((SAME, digest(KINDS[kind].read(Path(name)))))
        except Exception as error:  # noqa: BLE001 - judged
            pipe.send(judged(error, Path(name)))


def judged(error: Exception, path: Path) -> tuple[str, str]:
    """Whether an error is one in words that names the file, as the command line would show it."""
    from brainlit.cli.errors import is_for_the_user, message_of

    if not is_for_the_user(error):
        return TRACEBACK, f"{type(error).__name__}: {error}"
    named = path.name in message_of(error) or type(error).__name__ == "CheckpointError"
    return (REFUSED if named else NAMELESS), str(error)


def flip_table(folder: Path, kinds: Sequence[str], n: int, seed: int, reader: Reader) -> dict[str, Counter[str]]:
    """By kind of file, what became of n flipped bits."""
    from tests.benchmarks.fault_kinds import KINDS

    table = {}
    for kind in kinds:
        path = folder / KINDS[kind].file
        content, expected, found = path.read_bytes(), reader.expected(kind, path), Counter[str]()
        for byte, bit in flips(len(content), n, seed):
            path.write_bytes(flipped(content, byte, bit))
            found[reader.read(kind, path, expected)[0]] += 1
        path.write_bytes(content)
        table[kind] = found
        print(row(kind, found), file=sys.stderr, flush=True)
    return table


def damaged(content: bytes, others: dict[str, bytes], n: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """n damaged contents, each with what was done: every other format once, then cuts, flips, zeros by turns."""
    yield from list(others.items())[:n]
    for k in range(n - len(others)):
        if not k % 3:
            yield "cut off", content[: rng.randrange(len(content))]
        elif k % 3 == 1:
            changed = content
            for _ in range(rng.choice((1, 8, 64))):
                changed = flipped(changed, rng.randrange(len(content)), rng.randrange(8))
            yield "flipped", changed
        else:
            start = rng.randrange(len(content))
            stop = min(len(content), start + rng.choice((1, 64, 4096)))
            yield "holes", content[:start] + bytes(stop - start) + content[stop:]


def input_table(
    folder: Path, kinds: Sequence[str], n: int, seed: int, reader: Reader
) -> tuple[dict[str, Counter[str]], dict[str, str]]:
    """By kind of file, what became of damaged ones, n in all; and an example of each fault."""
    from tests.benchmarks.fault_kinds import KINDS, other_formats

    table: dict[str, Counter[str]] = {}
    examples: dict[str, str] = {}
    others, rng = other_formats(folder), random.Random(seed)
    for kind in kinds:
        path = folder / KINDS[kind].file
        content, expected, found = path.read_bytes(), reader.expected(kind, path), Counter[str]()
        other = {what: one for what, one in others.items() if kind != "npz" or what != "an archive"}  # which is one
        for what, changed in damaged(content, other, max(1, n // len(kinds)), rng):
            path.write_bytes(changed)
            outcome, said = reader.read(kind, path, expected)
            found[outcome] += 1
            if outcome not in (REFUSED, SAME) and (outcome != OTHER or has_whole_checksum(kind)):
                examples.setdefault(f"{kind}, {what}: {outcome}", said[:200])
        path.write_bytes(content)
        table[kind] = found
        print(row(kind, found), file=sys.stderr, flush=True)
    return table, examples


def has_whole_checksum(kind: str) -> bool:
    """Whether a checksum covers all that is in files of a kind."""
    from tests.benchmarks.fault_kinds import KINDS

    return bool(KINDS[kind].checked) and not KINDS[kind].checked.endswith(PARTLY)


def faults_of(table: dict[str, Counter[str]]) -> Counter[str]:
    """Everything but what was refused in words, was harmless, or was used because nothing can tell."""
    total: Counter[str] = Counter()
    for kind, found in table.items():
        total += Counter({name: n for name, n in found.items() if name not in (REFUSED, SAME, OTHER)})
        if has_whole_checksum(kind):
            total += Counter({name: n for name, n in found.items() if name == OTHER})
    return total


PARTLY = ("not of the text around", "not structure")
"""Formats of others whose checksums leave something out."""


def printed(title: str, table: dict[str, Counter[str]]) -> Iterator[str]:
    """The table in Markdown."""
    from tests.benchmarks.fault_kinds import KINDS

    yield f"{title}\n\n| file | trials | {' | '.join(COLUMNS)} | what tells |"
    yield "|---|" + "---|" * (len(COLUMNS) + 2)
    for kind, found in table.items():
        yield f"{row(kind, found)} {KINDS[kind].checked or 'nothing'} |"
    yield ""


def row(kind: str, found: Counter[str]) -> str:
    """The counts of one kind."""
    return f"| {kind} | {found.total()} | {' | '.join(str(found[name]) for name in COLUMNS)} |"


def made(folder: Path, kinds: Sequence[str]) -> None:
    """Write the files of these kinds."""
    from tests.benchmarks.fault_kinds import KINDS

    for kind in kinds:
        KINDS[kind].make(folder)


def main() -> int:
    """Damage, read, count; 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000, help="flipped bits per kind of file")
    parser.add_argument("--inputs", type=int, default=2000, help="damaged files in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=None, help="some kinds only")
    given = parser.parse_args()
    from tests.benchmarks.fault_kinds import KINDS

    kinds = given.kinds or list(KINDS)
    with tempfile.TemporaryDirectory() as name, Reader() as reader:
        folder = Path(name)
        made(folder, kinds)
        flips_found = flip_table(folder, kinds, given.flips, given.seed, reader) if given.flips else {}
        print(*printed(f"Single flipped bits, seed {given.seed}", flips_found), sep="\n", flush=True)
        inputs_found, examples = (
            input_table(folder, kinds, given.inputs, given.seed, reader) if given.inputs else ({}, {})
        )
        print(*printed(f"Damaged files, seed {given.seed}", inputs_found), sep="\n", flush=True)
    for where, said in examples.items():
        print(f"- {where}: {said}")
    faults = faults_of(flips_found) + faults_of(inputs_found)
    print(f"faults: {dict(faults) or 'none'}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
