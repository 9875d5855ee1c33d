"""Sounds with the rhythm of speech, for tests of channels and damage."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

RATE_HZ = 16_000


@lru_cache
def syllables(seed: int, seconds: float, rate_hz: int = RATE_HZ) -> npt.NDArray[np.float64]:
    """Voiced syllables of 0.1 to 0.3 s with pauses: harmonics of a voice and a little noise, shape (n_samples,)."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    voice = sum(np.sin(2 * np.pi * k * (90 + 25 * seed) * t + k) / k for k in range(1, 12))
    loud, at = np.zeros(len(t)), 0.0
    while at < seconds:
        length = rng.uniform(0.1, 0.3)
        part = slice(round(at * rate_hz), round((at + length) * rate_hz))
        loud[part] = np.hanning(len(loud[part])) * rng.uniform(0.3, 1)
        at += length + rng.choice([0.02, 0.4], p=[0.8, 0.2])
    return np.asarray(0.1 * loud * voice + 1e-3 * rng.standard_normal(len(t)))
