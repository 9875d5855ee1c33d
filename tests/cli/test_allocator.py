"""Keeping freed memory: asked in another process, for it lasts."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np, resource
from brainlit.cli.allocator import keep_freed_memory
print(keep_freed_memory())
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(8_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is Linux's")
def test_large_blocks_are_reused_instead_of_faulted_in_again() -> None:
    understood, faults = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    ).stdout.split()
    if understood == "False":
        pytest.skip("this C library has no mallopt")
    assert int(faults) < 20 * 8_000_000 * 8 / 4096 / 10
