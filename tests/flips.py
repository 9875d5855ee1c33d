"""Single bits of files flipped, one after the other: what a reader makes of each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Outcome:
    """What became of the flips of one kind of file.

    Parameters
    ----------
    refused : list of Exception
    n_harmless : int
        The same was read, bit for bit.
    silent : list of (byte, bit)
        Something else was read, and nothing was said.
    """

    refused: list[Exception] = field(default_factory=list)
    n_harmless: int = 0
    silent: list[tuple[int, int]] = field(default_factory=list)


def flips(n_bytes: int, n: int, seed: int) -> Iterator[tuple[int, int]]:
    """n places, byte and bit, of which none comes twice."""
    yield from (divmod(place, 8) for place in random.Random(seed).sample(range(8 * n_bytes), min(n, 8 * n_bytes)))


def flipped(content: bytes, byte: int, bit: int) -> bytes:
    """The same content with one bit turned round."""
    changed = bytearray(content)
    changed[byte] ^= 1 << bit
    return bytes(changed)


def flip_each(path: Path, read: Callable[[], object], n: int, seed: int = 0) -> Outcome:
    """Flip n bits of a file, one at a time, read after each, and put the file back.

    Parameters
    ----------
    read : function
        Gives plain values that can be compared: bytes for arrays, so that NaN is NaN.
    """
    content, expected, outcome = path.read_bytes(), read(), Outcome()
    try:
        for byte, bit in flips(len(content), n, seed):
            path.write_bytes(flipped(content, byte, bit))
            try:
                found = read()
            except Exception as error:  # noqa: BLE001 - judged by the caller: a traceback is as good as silence
                outcome.refused.append(error)
                continue
            if found == expected:
                outcome.n_harmless += 1
            else:
                outcome.silent.append((byte, bit))
    finally:
        path.write_bytes(content)
    return outcome
