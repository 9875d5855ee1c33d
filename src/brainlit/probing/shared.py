"""The probe before training: the same in every run of one model, data and probe, so it is made once and then read.

Runs that differ only in how they train (regime, rates, epochs) find the records that the first of them left in
brainlit's cache, and copy them: the files are the same, byte for byte. An entry is found by everything that decides a
number of it, and by more where that is simpler: the weights, the content of the store, the stories of every role, all
settings of the probe, brainlit's code and the user's own, versions of all packages, threads and processor. Whatever is
not surely the same is computed.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from brainlit.entries import SharedEntries
from brainlit.paths import cache_dir
from brainlit.probing.engine import ProbeEngine
from brainlit.probing.inputs import ProbedModule, settings_hash
from brainlit.results.record import load_record, record_path
from brainlit.results.run_directory import package_versions

if TYPE_CHECKING:
    from brainlit.datamodules import StoryDataModule
    from brainlit.results.record import ProbeRecord

FOLDER = "probes_before"
"""In brainlit's cache."""
SAID_ELSEWHERE = ("mode", "origin", "weights")
"""What a backbone says of itself and no number of a probe depends on: the weights count by their content."""
VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE"),
)
"""Of the environment: they choose threads and instructions, and with them the order in which numbers are added."""


class SharedProbe:
    """One probe before training, as other runs may have left it or will find it.

    Parameters
    ----------
    settings : mapping
        Plain JSON; see `what_decides`.
    max_gb : float
        Disk for all such probes together, in 10^9 bytes.
    """

    def __init__(self, settings: Mapping[str, Any], max_gb: float) -> None:
        self.settings, self.subjects = settings, list(settings["subjects"])
        self.entries = SharedEntries(cache_dir() / FOLDER, max_gb)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Read it or make it in this block; a run that wants the same one waits meanwhile."""
        with self.entries.alone(self.settings, "another run makes the same probe before training, and it is read then"):
            yield

    @property
    def path(self) -> Path:
        """Where it lies in the cache, if it is there."""
        return self.entries.path(self.settings)

    def read(self, folder: Path) -> dict[str, ProbeRecord]:
        """The records by subject, copied into a folder of probes; empty where nobody left them."""
        places = {f"{name}.h5": record_path(folder, name, 0) for name in self.subjects}
        if self.entries.fetch(self.settings, places) is None:
            return {}
        return {name: load_record(record_path(folder, name, 0)) for name in self.subjects}

    def keep(self, folder: Path) -> Path | None:
        """Leave the records of a folder of probes for other runs."""
        files = {f"{name}.h5": record_path(folder, name, 0) for name in self.subjects}
        return self.entries.keep(self.settings, files, {"made_in": str(folder.absolute())})


def what_decides(
    engine: ProbeEngine,
    module: ProbedModule,
    datamodule: StoryDataModule,
    subjects: Sequence[str],
    *,
    facts: Mapping[str, Any],
    tuned: StoryDataModule,
    more: Mapping[str, Any],
) -> dict[str, Any] | None:
    """Everything that decides the records of a probe of these subjects, as plain JSON.

    Parameters
    ----------
    facts : mapping
        What the records say beside the numbers; `weights` is the hash of the backbone's.
    tuned : StoryDataModule
        The data that are tuned on: the words of its role `tune` count as heard.
    more : mapping
        Plain JSON: precision, number of processes.

    Returns
    -------
    dict or None
        None where the code of a part of the model cannot be read, so that nobody can say whether it has changed.
    """
    network: nn.Module = cast("nn.Module", module)
    code = code_of(network)
    if code is None:
        return None
    backbone: Any = module.backbone
    about = backbone.describe() if hasattr(backbone, "describe") else {}
    config = asdict(engine.config)
    return {
        "weights": facts["weights"],
        "backbone": settings_hash({key: value for key, value in about.items() if key not in SAID_ELSEWHERE}),
        "attention": _attention(backbone),
        "lora": str(getattr(network, "lora", None)),  # its scale is no weight
        "code": {"brainlit": source_hash(), "model": code, "own": own_code()},
        "data": [_data_settings(one) for one in dict.fromkeys([datamodule, tuned])],
        "subjects": {name: engine.fingerprint(datamodule, name) for name in subjects},
        "probe": {
            "config": settings_hash(config),
            "layers": settings_hash(engine.layers),
            "partition_layer": engine.partition_layer,
            "score_role": engine.score_role,
            "bootstrap": engine.bootstrap,
        },
        "facts": settings_hash(dict(facts)),
        "versions": {**package_versions(), "all": installed_hash()},
        "machine": machine_settings(network),
        **more,
    }


def _data_settings(datamodule: StoryDataModule) -> dict[str, Any]:
    store, roles = datamodule.store, datamodule.roles
    kind = type(datamodule)
    return {
        "kind": f"{kind.__module__}.{kind.__qualname__}",
        "store": store.fingerprint,
        "files": settings_hash(store.hashes, asdict(store.index)),
        "roles": roles.as_text(),
        "all_of_roles": settings_hash(str(roles)),  # purge, exceptions, folds, clocks of stories
        "subjects": [list(datamodule.probed_subjects), list(datamodule.held_out_subjects)],
        "window": asdict(datamodule.window),
        "batch_size": datamodule.batch_size,
    }


def machine_settings(module: nn.Module) -> dict[str, Any]:
    """What the last bits of a number depend on besides versions: processor or GPU, threads, precision of products."""
    devices = sorted({str(parameter.device.type) for parameter in module.parameters()})
    return {
        "processor": processor(),
        "devices": devices,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "dtypes": sorted({str(parameter.dtype) for parameter in module.parameters()}),
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": [getattr(torch.backends.cudnn, name) for name in ("allow_tf32", "benchmark", "deterministic")],
        "torch_threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **{name: os.environ.get(name) for name in VARIABLES},
    }


@cache
def processor() -> str:
    """The processor's model, as far as the system says it, with the instructions that torch uses."""
    model, about = platform.processor(), Path("/proc/cpuinfo")
    if about.is_file():
        lines = about.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{platform.machine()} {model} {torch.backends.cpu.get_cpu_capability()}"


@cache
def source_hash() -> str:
    """Hash of all code of brainlit, so that any change of it is another probe."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


@cache
def installed_hash() -> str:
    """Hash of names and versions of all installed packages, and of how torch and numpy were built."""
    found = sorted({f"{one.metadata['Name']} {one.version}" for one in metadata.distributions()})
    built = np.show_config(mode="dicts").get("Build Dependencies", {})
    return settings_hash(found, torch.__config__.show(), built)


def own_code() -> str:
    """Hash of loaded code that belongs to no installed package: a model, data or script of the user's own.

    Also what these import from each other counts so. Brainlit's own code has `source_hash`.
    """
    paths = sysconfig.get_paths()
    places = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed = tuple(f"{os.path.realpath(one)}{os.sep}" for one in (*places, str(Path(__file__).parents[1])))
    as_named = tuple(f"{one}{os.sep}" for one in places)  # most are told without asking the disk
    loaded = {str(getattr(one, "__file__", None)) for one in list(sys.modules.values())}
    others = (os.path.realpath(file) for file in loaded if file.endswith(".py") and not file.startswith(as_named))
    files = {file for file in others if not file.startswith(installed) and Path(file).is_file()}
    return _hash_of_files(tuple(sorted(files)))


def _attention(backbone: Any) -> str:
    """Which of transformers' ways to compute attention; they differ in the last bits."""
    settings = getattr(getattr(backbone, "model", None), "config", None)
    return str(getattr(settings, "_attn_implementation", None))


def code_of(module: nn.Module) -> str | None:
    """Hash of the files in which the classes of a model's parts stand; None where one stands in no file."""
    files = set()
    for kind in {type(part) for part in module.modules()}:
        try:
            file = inspect.getsourcefile(kind)
        except (TypeError, OSError):  # typed at a prompt
            file = None
        if file is None or not Path(file).is_file():
            return None
        files.add(file)
    return _hash_of_files(tuple(sorted(files)))


@cache
def _hash_of_files(files: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for content in sorted(hashlib.sha256(Path(file).read_bytes()).digest() for file in files):  # wherever they lie
        digest.update(content)
    return digest.hexdigest()[:20]
