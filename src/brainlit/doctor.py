"""What this machine has and lacks: `brainlit doctor`, and `python -m brainlit.doctor --fix` during installation.

Standard library only, and nothing that is examined is imported into this process: packages are asked for their version
from their metadata, and imports that may fail are tried in a process of their own.

The torchaudio case. The package index offers torchaudio as a CUDA build. Beside a CPU-only torch its native libraries
(torchaudio/lib/*.so) cannot load, so `import torchaudio` raises, and so does transformers, which imports torchaudio
where it is installed. brainlit uses only the parts of torchaudio that are written in Python, and these work once the
libraries are out of the way: --fix renames them to *.so.unused, which renaming back undoes.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from brainlit.shipped import is_installed

Level = Literal["ok", "warning", "error"]

PACKAGES = ("torch", "lightning", "transformers", "himalaya", "nilearn", "h5py", "soundfile", "wandb")
_UNUSED_SUFFIX = ".unused"
NEEDED_DISK_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `cure` says what to do unless the level is 'ok'."""

    name: str
    level: Level
    message: str
    cure: str = ""

    def __str__(self) -> str:
        line = f"{self.level:8} {self.name}: {self.message}"
        return f"{line}\n         -> {self.cure}" if self.cure else line


def package_folder(name: str) -> Path | None:
    """Folder of an installed package, found without importing it; None if it is not installed."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def is_cpu_only(torch_folder: Path) -> bool:
    """Whether the torch in this folder was built without CUDA and ROCm, read from its version.py."""
    text = (torch_folder / "version.py").read_text(encoding="utf-8")
    built_for = dict(re.findall(r"^(cuda|hip)\b[^=]*=\s*(.+?)\s*$", text, flags=re.MULTILINE))
    return all(value == "None" for value in built_for.values())


def native_libraries(torchaudio_folder: Path) -> list[Path]:
    """The native libraries of torchaudio that an import would load."""
    return sorted((torchaudio_folder / "lib").glob("*.so"))


def import_error(module: str) -> str | None:
    """Last line of the error when a fresh Python imports the module; None if it imports."""
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"Python ended with status {done.returncode}"


def check_torchaudio(torchaudio_folder: Path | None, torch_folder: Path | None) -> Check:
    """Whether torchaudio imports, and if not, whether it is the CUDA build beside a CPU-only torch."""
    name = "torchaudio"
    if torchaudio_folder is None or torch_folder is None:
        return Check(name, "error", "torch or torchaudio is not installed", _installs("torch torchaudio"))
    libraries = native_libraries(torchaudio_folder)
    error = import_error("torchaudio")
    if error is None:
        without = "" if libraries else " without its native libraries, which brainlit does not need"
        return Check(name, "ok", f"imports{without}")
    if libraries and is_cpu_only(torch_folder):
        names = ", ".join(path.name for path in libraries)
        message = f"a CUDA build beside a CPU-only torch: {names} cannot load, so torchaudio and transformers fail"
        return Check(name, "error", message, "brainlit doctor --fix (sets these files aside; nothing else uses them)")
    return Check(name, "error", f"does not import: {error}", "install the torchaudio that belongs to your torch")


def fix_torchaudio(torchaudio_folder: Path | None, torch_folder: Path | None) -> list[Path]:
    """Set the native libraries aside where they cannot load; returns the files renamed (none where all is well)."""
    check = check_torchaudio(torchaudio_folder, torch_folder)
    if torchaudio_folder is None or torch_folder is None or check.level == "ok" or not is_cpu_only(torch_folder):
        return []
    libraries = native_libraries(torchaudio_folder)
    for path in libraries:
        path.rename(path.with_name(path.name + _UNUSED_SUFFIX))
    return libraries


def check_package(name: str) -> Check:
    """Whether a package is installed, and which version."""
    try:
        return Check(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Check(name, "error", "is not installed", _installs(name))


def _installs(names: str) -> str:
    """The command that installs what is missing: all that was tested, where there is a clone."""
    return f"pip install {names}" if is_installed() else "pip install -e '.[demo,dev]' -c constraints.txt"


def check_espeak() -> Check:
    """Whether the speech synthesiser of the demo is there."""
    folder = package_folder("espeakng_loader")
    if folder is None:
        return Check("espeak-ng", "warning", "is not installed: no demo data set", "pip install espeakng-loader")
    if not any(folder.glob("*espeak-ng.*")):
        cure = "pip install --force-reinstall espeakng-loader"
        return Check("espeak-ng", "error", "the wheel holds no library", cure)
    return Check("espeak-ng", "ok", "the library and its voices are there (GPL-3.0, used by the demo only)")


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def check_machine(folder: Path) -> list[Check]:
    """Cores, accelerator and free disk at the folder where runs and stores go."""
    free = shutil.disk_usage(folder).free
    disk = f"{free / 1e9:.1f} GB free at {folder}"
    enough = free >= NEEDED_DISK_BYTES
    cure = "" if enough else f"the demo needs {NEEDED_DISK_BYTES / 1e9:.0f} GB; free some, or work in another folder"
    gpu = "an NVIDIA driver is there" if shutil.which("nvidia-smi") else "no NVIDIA driver: everything runs on the CPU"
    return [
        Check("cores", "ok", str(available_cores())),
        Check("accelerator", "ok", gpu),
        Check("disk", "ok" if enough else "warning", disk, cure),
    ]


def check_wandb() -> Check:
    """Whether W&B would log online; both answers are fine."""
    home = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    logged_in = "WANDB_API_KEY" in os.environ or (home.is_file() and "wandb" in home.read_text(errors="replace"))
    return Check("wandb account", "ok", "logged in: runs go online" if logged_in else "none: runs are kept offline")


def examine() -> list[Check]:
    """Everything the doctor looks at, in the order in which it is shown."""
    return [
        Check("python", "ok", sys.version.split()[0]),
        *(check_package(name) for name in PACKAGES),
        check_torchaudio(package_folder("torchaudio"), package_folder("torch")),
        check_espeak(),
        check_wandb(),
        *check_machine(Path.cwd()),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was found; 1 if anything is an error.

    Parameters
    ----------
    argv : sequence of str, optional
        `--fix` sets torchaudio's native libraries aside where they cannot load.
    """
    parser = argparse.ArgumentParser(prog="brainlit doctor", description="Look at this machine; say what is missing.")
    parser.add_argument("--fix", action="store_true", help="repair what can be repaired: the torchaudio case")
    arguments = parser.parse_args(argv)
    if arguments.fix:
        for path in fix_torchaudio(package_folder("torchaudio"), package_folder("torch")):
            print(f"fixed    torchaudio: {path.name} is now {path.name}{_UNUSED_SUFFIX}")
    checks = examine()
    for check in checks:
        print(check)
    return int(any(check.level == "error" for check in checks))


if __name__ == "__main__":
    sys.exit(main())
