"""What the frozen front end makes of a window, kept on disk for later epochs and runs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from brainlit.backbones import FrontEnd, SpeechBackbone
from brainlit.files import atomic_path
from brainlit.paths import cache_dir

log = logging.getLogger(__name__)

BYTES_PER_GB = 10**9
KEY_BYTES = 16
CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class FrontEndCacheConfig:
    """Keep what the frozen front end makes of each window.

    It pays where windows come back: every epoch with --data.window.random_phase false or windows of one row, and in
    runs that follow on the same data. A 10 s window of a base model is 1 MB in float32.

    Parameters
    ----------
    max_gb : float
        Disk to use at most, in 10^9 bytes; 0 keeps nothing.
    folder : str or None
        Where; None takes brainlit's own cache.
    dtype : str
        float32 gives back exactly what was computed; bfloat16 halves the space and rounds to three digits.
    """

    max_gb: float = 0.0
    folder: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if not 0 <= self.max_gb < float("inf"):
            raise ValueError(f"front_end_cache.max_gb is {self.max_gb}; give gigabytes of disk, 0 for no cache.")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"front_end_cache.dtype is {self.dtype!r}; choose float32 or bfloat16.")


class FrontEndCache:
    """Features of windows by the content of their sound: the same sound and front end, the same file.

    One file per window, written under a temporary name and renamed, so several processes may share a folder. Once the
    budget is spent, or the disk full, nothing more is stored, and what is there is still read. Each file ends in a
    checksum of the rest: one that is damaged or cannot be read is computed and written again, and that is said once.

    Parameters
    ----------
    config : FrontEndCacheConfig
    backbone : SpeechBackbone
        Its front end must be frozen.

    Attributes
    ----------
    n_hits, n_misses : int
        Windows read and computed so far.

    Raises
    ------
    ValueError
        If the front end is not frozen: what it makes would change from step to step.
    """

    def __init__(self, config: FrontEndCacheConfig, backbone: SpeechBackbone) -> None:
        if not backbone.feature_encoder_frozen:
            raise ValueError("the front end is trained, so what it makes cannot be kept; set front_end_cache.max_gb 0.")
        parent = Path(config.folder).expanduser() if config.folder else cache_dir() / "front_end"
        self.folder = parent / front_end_key(backbone)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.backbone, self.config = backbone, config
        self.n_hits = self.n_misses = 0
        self._bytes = sum(path.stat().st_size for path in parent.rglob("*.npy"))
        self._said: set[str] = set()

    def front_end(self, audio: Tensor, audio_mask: Tensor) -> FrontEnd:
        """As `backbone.front_end`, which is asked only for windows that are not there yet, and always in float32."""
        paths = [self.folder / f"{key}.npy" for key in window_keys(audio, audio_mask, self.config.dtype)]
        known = {k: found for k, path in enumerate(paths) if (found := self._read(path)) is not None}
        missing = [k for k in range(len(paths)) if k not in known]
        self.n_hits, self.n_misses = self.n_hits + len(known), self.n_misses + len(missing)
        if missing:
            with torch.autocast(audio.device.type, enabled=False):
                computed = self.backbone.front_end(audio[missing], audio_mask[missing]).features
            for k, features in zip(missing, computed, strict=True):
                self._keep(paths[k], features)
                known[k] = features
        features = torch.stack([known[k].to(audio.device, non_blocking=True) for k in range(len(paths))])
        times_s = self.backbone.frame_times_s(audio.shape[1]).to(audio.device)
        return FrontEnd(features, self.backbone.frame_mask(audio_mask), times_s)

    def _read(self, path: Path) -> Tensor | None:
        """What was kept; None where nothing was, or what is there is not what was written."""
        try:
            raw = path.read_bytes()
            content, checksum = raw[:-CHECKSUM_BYTES], raw[-CHECKSUM_BYTES:]
            if _checksum(content) != checksum:
                raise ValueError("its checksum is another")
            values = np.load(BytesIO(content), allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            self._say_once("%s cannot be used (%s): what it kept is computed again, as for others like it", path, error)
            return None
        if self.config.dtype == "bfloat16":
            return torch.from_numpy(values).view(torch.bfloat16).float()
        return torch.from_numpy(values)

    def _keep(self, path: Path, features: Tensor) -> None:
        kept = features.detach().to("cpu", getattr(torch, self.config.dtype))
        size = kept.numel() * kept.element_size()
        if self._bytes + size > self.config.max_gb * BYTES_PER_GB:
            self._say_once(
                "the cache of the front end in %s is full (%g GB); further windows are computed each time. Give a"
                " larger --model.front_end_cache.max_gb, or delete the folder.",
                self.folder,
                self.config.max_gb,
            )
            return
        values = kept.view(torch.int16).numpy() if self.config.dtype == "bfloat16" else kept.numpy()
        content = BytesIO()
        np.save(content, values, allow_pickle=False)
        try:
            with atomic_path(path) as temporary:
                temporary.write_bytes(content.getvalue() + _checksum(content.getvalue()))
        except OSError as error:  # a cache is no reason to stop
            self._say_once("cannot keep what the front end makes in %s (%s); it is computed each time", path, error)
            return
        self._bytes += size

    def _say_once(self, message: str, *values: object) -> None:
        if message not in self._said:
            log.warning(message, *values)
        self._said.add(message)


def _checksum(content: bytes) -> bytes:
    return crc32(content).to_bytes(CHECKSUM_BYTES, "little")


def front_end_key(backbone: SpeechBackbone) -> str:
    """Hash of the front end's weights and of what else decides its output."""
    digest = blake2b(f"{backbone.family} {backbone.front_end_settings()}".encode(), digest_size=KEY_BYTES)
    for module in backbone.front_end_modules():
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def window_keys(audio: Tensor, audio_mask: Tensor, dtype: str) -> list[str]:
    """Hash of each window's samples and mask."""
    sound, mask = audio.cpu().contiguous().numpy(), audio_mask.cpu().contiguous().numpy()
    keys = []
    for samples, real in zip(sound, mask, strict=True):
        digest = blake2b(f"{dtype} {samples.dtype} {samples.shape}".encode(), digest_size=KEY_BYTES)
        # The mask belongs to the key: silence that counts as sound is normalised otherwise than padding.
        digest.update(samples.tobytes())
        digest.update(np.packbits(real).tobytes())
        keys.append(digest.hexdigest())
    return keys
