"""Whether half precision is worth having on this device: on some processors it is a hundred times slower."""

from __future__ import annotations

import time

import torch

SIZE = 256
WORTH_SAYING = 1.5


def slow_precision(precision: str, device: torch.device, seconds: dict[torch.dtype, float] | None = None) -> str | None:
    """A sentence for the user if bfloat16 products are slower than float32 ones on this processor, else None.

    Processors without instructions for bfloat16 compute it number by number. This is measured, on one small product.

    Parameters
    ----------
    precision : str
        As the Trainer takes it, such as 'bf16-mixed'.
    device : torch.device
        Only a CPU is looked at.
    seconds : dict of dtype to float, optional
        How long a product takes; measured now where not given.
    """
    if not precision.startswith("bf16") or device.type != "cpu":
        return None
    measured = seconds or {dtype: _matmul_seconds(dtype) for dtype in (torch.float32, torch.bfloat16)}
    ratio = measured[torch.bfloat16] / measured[torch.float32]
    if ratio < WORTH_SAYING:
        return None
    return (
        f"precision {precision}: matrix products in bfloat16 take {ratio:.0f} times as long as in float32 on this"
        " processor, which has no instructions for them. Train with --trainer.precision 32-true here."
    )


def _matmul_seconds(dtype: torch.dtype) -> float:
    a = torch.ones(SIZE, SIZE, dtype=dtype)
    a @ a
    started = time.perf_counter()
    a @ a
    return time.perf_counter() - started
