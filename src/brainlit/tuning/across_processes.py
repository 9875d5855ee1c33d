"""Sums over the processes of a distributed run, so that a loss is that of all their rows together.

Each process sees the windows of its own batches, which do not hold equally many rows that count, and DDP and FSDP
average the gradients of the processes as if they did. A loss that is made of sums over all processes is the same number
in each of them, and the average of its gradients is the gradient that one process with all windows has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def count_processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(own: Tensor) -> Tensor:
    """The sum of a tensor over all processes, every one of which calls this.

    The gradient that reaches a process's own tensor is multiplied by the number of processes, for they are averaged
    later. It is right where whatever is made of the sum is the same in each process: sums of what already depends on
    other sums with gradients are not.

    Parameters
    ----------
    own : Tensor
        Of any shape, the same in all processes.
    """
    n_processes = count_processes()
    if n_processes == 1:
        return own
    total = own.detach().clone()
    dist.all_reduce(total)
    return total + n_processes * (own - own.detach()) if own.requires_grad else total


def mean_over_rows(rows: Tensor) -> Tensor:
    """Mean of rows (n_rows, ...) of all processes, of shape (...); 0 where there are none."""
    n_rows = sum_over_processes(torch.tensor(float(len(rows)), device=rows.device))
    return sum_over_processes(rows.sum(0)) / n_rows.clamp(min=1)


def gather_in_first(own: Sequence[Any]) -> list[Any]:
    """What all processes have, in the first of them and in their order; in the others an empty list.

    Parameters
    ----------
    own : sequence
        Anything that can be pickled, as much of it as there is; tensors are to be on the CPU.
    """
    n_processes = count_processes()
    if n_processes == 1:
        return list(own)
    is_first = dist.get_rank() == 0
    parts: list[Any] = [None] * n_processes
    dist.gather_object(list(own), parts if is_first else None)
    return [one for part in parts for one in part] if is_first else []
