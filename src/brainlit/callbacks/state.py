"""Borrow what is global and give it back: random states, module modes, torch threads."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def borrowed_state(module: nn.Module) -> Iterator[None]:
    """Let the block do what it likes to the random states, to train/eval modes and to torch's thread count.

    Everything is put back as it was when the block ends, also when it raises: each submodule gets its own mode back
    (a frozen part that was in eval mode stays there), and training goes on with the random numbers that it would have
    drawn without the block.
    """
    modes = {part: part.training for part in module.modules()}
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - the global state is what is borrowed
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    n_threads = torch.get_num_threads()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
        if torch.get_num_threads() != n_threads:
            torch.set_num_threads(n_threads)
