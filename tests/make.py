"""Run the Makefile with programs that only write down what they are given."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def made(folder: Path, target: str, *variables: str) -> list[list[str]]:
    """The words that each program of the virtual environment is given by `make TARGET NAME=VALUE ...`."""
    programs, said = folder / "venv" / "bin", folder / "said"
    programs.mkdir(parents=True)
    for name in ("brainlit", "python", "ruff"):
        (programs / name).write_text(f'#!/bin/sh\nfor word in "$0" "$@"; do printf "%s\\0" "$word"; done >> {said}\n')
        (programs / name).write_text((programs / name).read_text() + f'printf "\\n" >> {said}\n')
        (programs / name).chmod(0o755)
    (folder / "venv" / ".ready").write_text("")
    command = ["make", "--no-print-directory", f"VENV={folder}/venv", target, *variables]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    runs = said.read_text().split("\0\n")
    return [[Path(words[0]).name, *words[1:]] for words in (run.split("\0") for run in runs if run)]
