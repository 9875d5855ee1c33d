"""What a training step takes: memory, operations and seconds of this processor.

One window of noise, and then two, go forward and backward through the module itself on the CPU, and every block of
memory that comes and goes is counted. A GPU holds the same blocks at the same moments, so that what a step takes there
follows, but for CUDA's own memory and the work space of its kernels. In half precision the two also round a few
different operations.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from brainlit.timebase import SAMPLE_RATE_HZ
from brainlit.tuning.model import Batch
from brainlit.tuning.module import BrainTuning
from brainlit.tuning.precision import is_mixed

CUDA_BYTES = 1.5e9
"""For CUDA itself, the work space of its kernels and what its allocator leaves unused."""
ADAM_COPIES = 2
"""Float32 values that Adam keeps of each trained parameter."""


@dataclass(frozen=True)
class Clip:
    """The window that is planned: n_trs rows of tr_s seconds with targets, and context_s seconds of sound before."""

    n_trs: int
    tr_s: float
    context_s: float

    @property
    def window_s(self) -> float:
        """Sound of the whole window."""
        return self.n_trs * self.tr_s + self.context_s

    def noise(self, n: int, sizes: Mapping[str, int]) -> Batch:
        """n windows as a data module gives them out, of noise instead of sound and responses."""
        generator = torch.Generator().manual_seed(0)
        n_context = int(self.context_s / self.tr_s + 1e-9)
        edges_s = self.context_s - n_context * self.tr_s + self.tr_s * torch.arange(n_context + self.n_trs + 1)
        audio = torch.randint(-8000, 8000, (n, round(self.window_s * SAMPLE_RATE_HZ)), generator=generator)
        shape = (n, self.n_trs)
        return {
            "audio": audio.to(torch.int16),
            "audio_mask": torch.ones_like(audio, dtype=torch.bool),
            "bin_edges_s": edges_s.repeat(n, 1),
            "read_s": (edges_s[-self.n_trs - 1 : -1] + self.tr_s / 2).repeat(n, 1),
            "text": ["noise"] * n,
            "targets": {name: torch.randn(*shape, size, generator=generator) for name, size in sizes.items()},
            "target_mask": {name: torch.ones(shape, dtype=torch.bool) for name in sizes},
            "row_mask": torch.ones(shape, dtype=torch.bool),
            "story": torch.zeros(n, dtype=torch.int64),
            "first_tr": torch.zeros(n, dtype=torch.int64),
        }


@dataclass(frozen=True)
class Footprint:
    """What one step takes.

    Parameters
    ----------
    n_parameters, n_trained : int
        Of backbone and head together, but for decoders that never run; and how many of them are trained.
    forward_bytes, backward_bytes : pair of float
        Most memory in the forward and in the backward pass, beside weights and Adam's state: of a step without
        windows, and how much more each window takes.
    flops : float
        Operations of one window, forward and backward.
    wall_s, cpu_s : float
        Seconds that one window takes here, forward and backward, on the clock and of all cores together.
    """

    n_parameters: int
    n_trained: int
    forward_bytes: tuple[float, float]
    backward_bytes: tuple[float, float]
    flops: float
    wall_s: float
    cpu_s: float

    @property
    def state_bytes(self) -> float:
        """Weights and Adam's state, in bytes."""
        return 4.0 * (self.n_parameters + ADAM_COPIES * self.n_trained)

    def memory_bytes(self, n_windows: int) -> float:
        """What a step of so many windows takes at its fullest moment, in bytes, without CUDA's own.

        >>> Footprint(10**8, 10**8, (0.0, 1e9), (0.4e9, 0.9e9), flops=1, wall_s=1, cpu_s=1).memory_bytes(5) / 1e9
        6.2
        """
        return self.state_bytes + max(
            none + n_windows * each for none, each in (self.forward_bytes, self.backward_bytes)
        )

    def windows_within(self, gpu_bytes: float) -> int:
        """How many windows fit into a GPU of so many bytes at a time; 0 where not one does.

        >>> Footprint(10**8, 10**8, (0.0, 1e9), (0.4e9, 0.9e9), flops=1, wall_s=1, cpu_s=1).windows_within(8e9)
        5
        """
        left = gpu_bytes - CUDA_BYTES - self.state_bytes
        return max(0, min(int((left - none) // each) for none, each in (self.forward_bytes, self.backward_bytes)))


def measure_step(module: BrainTuning, clip: Clip, sizes: Mapping[str, int], precision: str = "32-true") -> Footprint:
    """Send noise forward and backward through a module, and look what it takes.

    Parameters
    ----------
    module : BrainTuning
        On the CPU. Its head is built for the sizes, if it is not there; it has no gradients afterwards.
    sizes : mapping of subject to int
        Targets of each.
    precision : str
        As a Trainer takes it. Both mixed ones are counted in bfloat16, whose numbers have the bytes of float16's.
    """
    if module.head is None:
        module.build_head(sizes)
    peaks = [_peak_bytes(module, clip.noise(n, sizes), precision) for n in (1, 2)]
    (forward, backward) = ((2 * one - two, two - one) for one, two in zip(*peaks, strict=True))
    batch = clip.noise(1, sizes)
    flops = _operations(module, batch)
    started, cpu_started = time.perf_counter(), time.process_time()
    _loss(module, batch, precision).backward()  # type: ignore[no-untyped-call]
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    module.zero_grad(set_to_none=True)
    used = [parameter for name, parameter in module.named_parameters() if "decoder" not in name]
    return Footprint(
        n_parameters=sum(parameter.numel() for parameter in used),
        n_trained=sum(parameter.numel() for parameter in used if parameter.requires_grad),
        forward_bytes=forward,
        backward_bytes=backward,
        flops=flops,
        wall_s=wall_s,
        cpu_s=cpu_s,
    )


def _operations(module: BrainTuning, batch: Batch) -> float:
    """Of products and convolutions, forward and backward; torch does not count the CPU's attention by itself."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

    def forward(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]

    def backward(gradient: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_backward_flop_count(gradient, q, k, v))  # type: ignore[no-untyped-call]

    aten = torch.ops.aten
    counted = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        module.losses(batch)["loss"].backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops())


def _loss(module: BrainTuning, batch: Batch, precision: str) -> torch.Tensor:
    """As a Trainer of this precision computes it: the forward pass is rounded, weights and backward pass follow."""
    with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed(precision)):
        return module.losses(batch)["loss"]


def _peak_bytes(module: BrainTuning, batch: Batch, precision: str = "32-true") -> tuple[float, float]:
    """Most bytes that were new at any moment of the forward, and of the backward pass, gradients included."""
    module.zero_grad(set_to_none=True)
    with AllocatedMemory() as memory:
        loss = _loss(module, batch, precision)
        forward, memory.peak = memory.peak, memory.now
        loss.backward()  # type: ignore[no-untyped-call]
    del loss
    module.zero_grad(set_to_none=True)
    return float(forward), float(memory.peak)


class AllocatedMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are made inside the block and still there.

    (torch's own tracker of this kind also hooks every submodule, which the frozen front ends of transformers do not
    stand: they ask for gradients of their input and then compute without.)

    Attributes
    ----------
    now, peak : int
        Bytes at this moment, and the most so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and look at what it returns."""
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and id(leaf.untyped_storage()) not in given:
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, n_bytes = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def gone(_: Any) -> None:
            del self._alive[key]
            self.now -= n_bytes

        self._alive[key] = weakref.ref(storage, gone)
        self.now += n_bytes
        self.peak = max(self.peak, self.now)
