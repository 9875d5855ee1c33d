"""The numbers that training computes in: which precisions of a Trainer are taken, and what each of them asks for.

Weights, losses and the clock of the windows stay in float32; `bf16-mixed` and `16-mixed` round the products within the
layers only. Everything else that Lightning offers is refused before anything is computed.
"""

from __future__ import annotations

import time

import torch

TAKEN = ("32-true", "bf16-mixed", "16-mixed")
ALIASES = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true"}
"""Short names of Lightning's."""
_ROUNDS_THE_CLOCK = (
    "it would keep weights and times in {digits} binary digits: the steps of the optimiser would be lost in rounding,"
    " and so would the seconds that say which scanner row a frame belongs to"
)
_REPLACES_LAYERS = (
    "it replaces the layers of the speech model by others, and what was tuned would fit no published model"
)
REFUSED = {
    "bf16-true": _ROUNDS_THE_CLOCK.format(digits=8),
    "16-true": _ROUNDS_THE_CLOCK.format(digits=11),
    "64-true": "sound, pools and losses are float32 whatever the weights are, so it would bring no digit",
    "transformer-engine": _REPLACES_LAYERS,
    "transformer-engine-float16": _REPLACES_LAYERS,
}
"""Precision -> why not."""
MATMUL_SIZE = 256
SLOW_RATIO = 1.5
"""bfloat16 products that take so many times as long as float32 ones are worth a warning."""


def require_precision(precision: str | int | None) -> None:
    """Refuse a precision in which tuning would not run, or would compute something else.

    Parameters
    ----------
    precision : str or int or None
        As the Trainer takes it: 'bf16-mixed', 'bf16', 32; None is its default.

    Raises
    ------
    ValueError
        With the cause, and what to give instead.

    Examples
    --------
    >>> require_precision("bf16")
    >>> require_precision(64)
    Traceback (most recent call last):
        ...
    ValueError: --trainer.precision 64-true cannot be used: sound, pools and losses are float32 whatever the weights \
are, so it would bring no digit. Give 32-true, bf16-mixed or 16-mixed.
    """
    if precision is None:
        return
    name = ALIASES.get(str(precision), str(precision))
    if name not in TAKEN:
        why = REFUSED.get(name, "brainlit does not know it")
        raise ValueError(
            f"--trainer.precision {name} cannot be used: {why}. Give {', '.join(TAKEN[:-1])} or {TAKEN[-1]}."
        )


def fused_suits(precision: str) -> bool:
    """Whether the optimiser may update all weights in one kernel: the same numbers, sooner.

    Lightning clips no gradients of fused optimisers in the mixed precisions, where a scaler may stand between the two.
    """
    return not is_mixed(precision)


def is_mixed(precision: str | int | None) -> bool:
    """Whether products within the layers are rounded to half precision.

    >>> [is_mixed(name) for name in ("bf16", "16-mixed", 32, None)]
    [True, True, False, False]
    """
    return ALIASES.get(str(precision), str(precision)).endswith("mixed")


# --- Half precision: on some processors it is a hundred times slower ---


def slow_precision(precision: str, device: torch.device, seconds: dict[torch.dtype, float] | None = None) -> str | None:
    """A sentence for the user if bfloat16 products are slower than float32 ones on this processor, else None.

    Processors without instructions for bfloat16 compute it number by number. This is measured, on one small product.

    Parameters
    ----------
    precision : str
        As the Trainer says it, such as 'bf16-mixed'.
    device : torch.device
        Only a CPU is looked at.
    seconds : dict of dtype to float, optional
        How long a product takes; measured now where not given.
    """
    if not precision.startswith("bf16") or device.type != "cpu":
        return None
    measured = seconds or {dtype: _matmul_seconds(dtype) for dtype in (torch.float32, torch.bfloat16)}
    ratio = measured[torch.bfloat16] / measured[torch.float32]
    if ratio < SLOW_RATIO:
        return None
    return (
        f"precision {precision}: matrix products in bfloat16 take {ratio:.0f} times as long as in float32 on this"
        " processor, which has no instructions for them. Train with --trainer.precision 32-true here."
    )


def _matmul_seconds(dtype: torch.dtype) -> float:
    a = torch.ones(MATMUL_SIZE, MATMUL_SIZE, dtype=dtype)
    a @ a
    started = time.perf_counter()
    a @ a
    return time.perf_counter() - started
