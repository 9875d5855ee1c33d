"""Remember what does not change between checkpoints: bands of the stimulus and what the search found with them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")


class ProbeCache:
    """Results of earlier probes, found again by the content of everything that they depend on.

    Low-level and semantic bands are the same for every checkpoint, layer and regime; the backbone is not. A probe that
    is given a cache looks up prepared bands and the search results of all gammas that put nothing on a changed band.
    Keys are hashes of the arrays and settings themselves, so a changed input is a miss and never a wrong answer.

    Parameters
    ----------
    max_bytes : int
        Arrays beyond this size are forgotten, longest unused first.
    """

    def __init__(self, max_bytes: int = 512 * 2**20) -> None:
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[tuple[Any, ...], tuple[Any, int]] = OrderedDict()

    def get(self, key: tuple[Any, ...], make: Callable[[], T], size: Callable[[T], int]) -> T:
        """The remembered value of a key, or make() remembered under it; size tells its bytes."""
        if key in self._entries:
            self.hits += 1
            self._entries.move_to_end(key)
            found: T = self._entries[key][0]
            return found
        self.misses += 1
        value = make()
        self._entries[key] = (value, size(value))
        while self.n_bytes > self.max_bytes and len(self._entries) > 1:
            self._entries.popitem(last=False)
        return value

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self._entries

    @property
    def n_bytes(self) -> int:
        """Bytes held at present."""
        return sum(size for _, size in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)


def fingerprint(*parts: npt.NDArray[Any] | str) -> str:
    """Hash of arrays (values, shape, dtype) and texts, in order."""
    digest = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            digest.update(b"text" + part.encode())
        else:
            array = np.ascontiguousarray(part)
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(array.view(np.uint8).reshape(-1).data if array.size else b"")
    return digest.hexdigest()
