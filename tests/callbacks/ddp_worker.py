"""One of two processes that train and probe together; started by test_ddp. Writes what happened to it as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import DDPStrategy

from brainlit.encoding import probe as encoding_probe
from tests.callbacks.toy_module import ToyModule, toy_data, toy_probe, toy_trainer

TIMEOUT_S, PROBE_S = 8.0, 15.0
original = encoding_probe.run_probes


def slow(*arguments: Any, **options: Any) -> Any:
    """A probe of three layers that takes longer than a collective waits."""
    time.sleep(PROBE_S / 3)
    return original(*arguments, **options)


def broken(*_: Any, **__: Any) -> Any:
    raise ArithmeticError("singular matrix in this share")


def fit(store: Path, run: Path, epochs: int) -> str:
    strategy = DDPStrategy(
        process_group_backend="gloo", timeout=timedelta(seconds=TIMEOUT_S), find_unused_parameters=True
    )
    trainer = toy_trainer(run, toy_probe(), epochs=epochs, strategy=strategy, devices=2, use_distributed_sampler=False)
    started = time.monotonic()
    try:
        trainer.fit(ToyModule(), toy_data(store))
    except (RuntimeError, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}"
    return f"steps {trainer.global_step}, longer {time.monotonic() - started > TIMEOUT_S}"


def start_together(folder: Path, rank: int) -> None:
    """Imports may take longer than a collective waits."""
    (folder / f"ready-{rank}").touch()
    while not (folder / f"ready-{1 - rank}").exists():
        time.sleep(0.05)


def main(store: Path, folder: Path) -> None:
    rank = int(os.environ["LOCAL_RANK"])
    start_together(folder, rank)
    ways: list[tuple[str, Callable[..., Any], int]] = [("slow", slow, 1), ("broken", broken, 0)]
    said = {}
    for name, way, epochs in ways:
        encoding_probe.run_probes = way if rank == 1 else original
        said[name] = fit(store, folder / name, epochs)
    (folder / f"said-{rank}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
