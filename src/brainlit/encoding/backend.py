"""Borrow himalaya's global array backend and give it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def himalaya_backend(name: str = "torch") -> Iterator[ModuleType]:
    """Use one of himalaya's backends ('numpy', 'torch', 'torch_cuda') inside the block.

    The backend is global state of himalaya: whatever was set before is set again afterwards, also when the block
    raises, so that a probe never changes what the caller's own himalaya code does.

    Raises
    ------
    ValueError
        If himalaya does not know the backend.
    """
    from himalaya.backend import get_backend, set_backend

    before = get_backend().name
    try:
        yield set_backend(name)
    finally:
        set_backend(before)
