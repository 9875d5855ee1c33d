"""One of two processes that train and probe together; started by test_ddp. Writes what happened to it as JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import DDPStrategy

from brainlit.encoding import probe as encoding_probe
from tests.callbacks.toy_module import ToyModule, toy_data, toy_probe, toy_trainer

TIMEOUT_S, PROBE_S, N_LAYERS = 3.0, 4.5, 3
original = encoding_probe.run_probes


waits_s = [PROBE_S / N_LAYERS] * N_LAYERS


def slow(*arguments: Any, **options: Any) -> Any:
    """The probe before training takes longer than a collective waits, the one after it as long as it does."""
    time.sleep(waits_s.pop() if waits_s else 0.0)
    return original(*arguments, **options)


def broken(*_: Any, **__: Any) -> Any:
    raise ArithmeticError("singular matrix in this share")


def fit(store: Path, run: Path, epochs: int) -> str:
    strategy = DDPStrategy(
        process_group_backend="gloo", timeout=timedelta(seconds=TIMEOUT_S), find_unused_parameters=True
    )
    probe = toy_probe(seed=int(run.name == "broken"))
    probe.share_gb = 1.0
    trainer = toy_trainer(run, probe, epochs=epochs, strategy=strategy, devices=2, use_distributed_sampler=False)
    started = time.monotonic()
    try:
        trainer.fit(ToyModule(), toy_data(store))
    except (RuntimeError, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}"
    return f"steps {trainer.global_step}, longer {time.monotonic() - started > TIMEOUT_S}"


def start_together(folder: Path, rank: int) -> None:
    """A process may start later than a collective waits."""
    (folder / f"ready-{rank}").touch()
    while not (folder / f"ready-{1 - rank}").exists():
        time.sleep(0.05)


def work(store: Path, folder: Path, environment: Mapping[str, str]) -> None:
    """Train thrice: the probe of the second process is slow in the first run, and fails in the third.

    The second run reads the probe before training that the first one left.
    """
    os.environ.update({**environment, "BRAINLIT_CACHE": str(folder / "cache")})
    rank = int(os.environ["LOCAL_RANK"])
    with (folder / f"log-{rank}").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    start_together(folder, rank)
    ways: list[tuple[str, Callable[..., Any], int]] = [("slow", slow, 1), ("read", broken, 0), ("broken", broken, 0)]
    said = {}
    for name, way, epochs in ways:
        encoding_probe.run_probes = way if rank == 1 else original
        said[name] = fit(store, folder / name, epochs)
    (folder / f"said-{rank}.json").write_text(json.dumps(said))
