"""The sound of a story file: read straight into a batch, each block checked when it is first read.

The samples lie in the file as they lie in memory, so the system reads them straight into an array; HDF5's own way, and
its checksums, take ten times as long per window. So the checksums are ours: a CRC-32 for each block of samples.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.hdf5 import write_array

BLOCK_SAMPLES = 2**16
SOUND, CHECKSUMS = "audio", "audio_crc32"


def write_sound(h5: Any, samples: npt.NDArray[np.int16]) -> None:
    """Write samples in one piece, and the checksums of their blocks."""
    h5.create_dataset(SOUND, data=samples)
    blocks = range(0, len(samples), BLOCK_SAMPLES)
    checksums = [zlib.crc32(np.ascontiguousarray(samples[first : first + BLOCK_SAMPLES]).data) for first in blocks]
    write_array(h5, CHECKSUMS, np.array(checksums, dtype=np.uint32))


class SoundInFile:
    """The samples of an open story file; those of stores without checksums are read unchecked.

    Parameters
    ----------
    h5 : h5py.File
        Must stay open.

    Raises
    ------
    OSError
        If the file holds them in another way.
    """

    def __init__(self, h5: Any) -> None:
        samples = h5[SOUND]
        offset = samples.id.get_offset()
        if samples.dtype != np.int16 or offset is None:
            raise OSError(f"audio is {samples.dtype}, chunked or empty; a store holds contiguous int16")
        self._file, self._offset, self._n_samples = int(h5.id.get_vfd_handle()), int(offset), len(samples)
        self._checksums = h5[CHECKSUMS][:] if CHECKSUMS in h5 else None
        n_blocks = -(-self._n_samples // BLOCK_SAMPLES)
        if self._checksums is not None and len(self._checksums) != n_blocks:
            raise OSError(f"{len(self._checksums)} checksums for {n_blocks} blocks of sound")
        self._is_checked = np.full(n_blocks, self._checksums is None)

    def read(self, start: int, out: npt.NDArray[np.int16]) -> None:
        """Fill a contiguous array from sample `start` on.

        Raises
        ------
        OSError
            If the file ends before, or the samples are not those that were written.
        """
        if start + len(out) > self._n_samples:
            raise OSError(f"the audio has {self._n_samples} samples, not {start + len(out)}")
        first, last = start // BLOCK_SAMPLES, -(-(start + len(out)) // BLOCK_SAMPLES)
        if not self._is_checked[first:last].all():
            for block in first + np.flatnonzero(~self._is_checked[first:last]):
                self._check(int(block))
        self._read(start, out)

    def _check(self, block: int) -> None:
        first = block * BLOCK_SAMPLES
        samples = np.empty(min(BLOCK_SAMPLES, self._n_samples - first), dtype=np.int16)
        self._read(first, samples)
        assert self._checksums is not None
        if zlib.crc32(samples.data) != int(self._checksums[block]):
            end = first + len(samples)
            raise OSError(f"samples {first}..{end - 1} of the audio are not what their checksum says")
        self._is_checked[block] = True

    def _read(self, start: int, out: npt.NDArray[np.int16]) -> None:
        rest, offset = out.view(np.uint8).data, self._offset + out.itemsize * start
        while rest:
            n_read = os.preadv(self._file, [rest], offset)
            if n_read == 0:
                raise OSError(f"the file ends at byte {offset}, inside the audio")
            rest, offset = rest[n_read:], offset + n_read
