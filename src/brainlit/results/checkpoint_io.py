"""Checkpoints that exist whole or not at all.

Lightning gathers a checkpoint in the system's temporary folder and moves it; where that folder is on another disk the
move is a copy, and a process killed during the copy leaves half a file under the final name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from brainlit.store.atomic import atomic_path


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint format, written under a temporary name in the same folder and renamed.

    Pass it to the trainer: `Trainer(plugins=[AtomicCheckpointIO()])`. Addresses with a scheme (s3://…) are left to
    Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write the checkpoint; on any error the file that was there before stays as it was.

        Parameters
        ----------
        checkpoint : dict
            Model and trainer state.
        path : path
            Where to write.
        storage_options : None
            Only for addresses with a scheme.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            torch.save(checkpoint, temporary)
