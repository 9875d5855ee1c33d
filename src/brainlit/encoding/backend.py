"""Borrow global state of himalaya and of torch, and give it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def himalaya_backend(name: str = "torch") -> Iterator[ModuleType]:
    """Use one of himalaya's backends ('numpy', 'torch', 'torch_cuda') inside the block.

    The backend is global state of himalaya: whatever was set before is set again afterwards, also when the block
    raises, so that a probe never changes what the caller's own himalaya code does. Its products are exact ones.

    Raises
    ------
    ValueError
        If himalaya does not know the backend.
    """
    from himalaya.backend import get_backend, set_backend

    before = get_backend().name
    try:
        with exact_products():
            yield set_backend(name)
    finally:
        set_backend(before)


@contextmanager
def exact_products() -> Iterator[None]:
    """Multiply float32 matrices in float32 inside the block, also where training lets torch round them to less.

    `torch.set_float32_matmul_precision("medium")` is good advice for a network; a Gram matrix that is rounded to eight
    bits has lost its small eigenvalues.
    """
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
