"""What commands take before they do anything: `python -m tests.benchmarks.start_up RUN [RUN ...] [--n 3]`.

RUN are finished runs whose story store is there. Every command runs n times in a process of its own, on files that were
read before; shown are the seconds on the clock and the CPU seconds (of the process and those that it started) of the
fastest, and which large packages it imported. `fit` is what the first run was, stopped at its first progress bar. On a
machine that computes something else besides, CPU seconds say more than the clock.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

LARGE = ("torch", "lightning", "transformers", "matplotlib", "scipy", "sklearn")
BAR = re.compile(rb"\[\d\d:\d\d[<,]")
COMMAND = """
import atexit, os, sys
large, file = sys.argv[1].split(), sys.argv[2]
del sys.argv[1:3]
found = lambda: open(file, "w").write(", ".join(name for name in large if name in sys.modules))
atexit.register(found)
from brainlit.cli import main
sys.exit(main())
"""


def commands(runs: Sequence[Path], folder: Path) -> dict[str, list[str]]:
    """Name -> what is typed behind `brainlit`."""
    config = runs[0] / "config.yaml"
    store = str(yaml.safe_load(config.read_text(encoding="utf-8"))["data"]["store_dir"])
    experiments = ("brain_tune.yaml", "model/wav2vec.yaml", "data/demo.yaml")
    configs = [part for name in experiments for part in ("-c", f"experiments/{name}")]
    return {
        "--help": ["--help"],
        "fit --help": ["fit", "--help"],
        "fit ... --print_config": ["fit", *configs, "--print_config"],
        "fit --help-all": ["fit", "--help-all"],
        "probe --help": ["probe", "--help"],
        "probe --help-all": ["probe", "--help-all"],
        "downstream --help": ["downstream", "--help"],
        "export --help": ["export", "--help"],
        "doctor": ["doctor"],
        "data info STORE": ["data", "info", store],
        "data info CONFIG": ["data", "info", str(config)],
        "data check STORE": ["data", "check", store],
        "report RUN": ["report", str(runs[0])],
        "compare RUN ...": ["compare", *map(str, runs)],
        "reproduce --dry-run": ["reproduce", "--quick", "--dry-run", "--experiment", folder.name],
        "fit, to its first bar": ["fit", "-c", str(config), "--run.root", str(folder), "--run.wandb", "off"],
    }


def measured(arguments: Sequence[str], folder: Path, to_first_bar: bool) -> tuple[float, float, str]:
    """Seconds on the clock, CPU seconds, and the large packages that were imported."""
    said = folder / "imported.txt"
    said.write_text("(killed there)")
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, " ".join(LARGE), str(said), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    written = b""
    while block := os.read(process.stdout.fileno(), 65536):
        written += block
        if to_first_bar and BAR.search(written):
            process.send_signal(signal.SIGKILL)
            break
    wall_s = time.monotonic() - start
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode not in ((0, -signal.SIGKILL) if to_first_bar else (0,)):
        raise RuntimeError(f"brainlit {' '.join(arguments)} failed:\n{written.decode(errors='replace')}")
    return wall_s, used.ru_utime + used.ru_stime, said.read_text()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs")
    parser.add_argument("--n", type=int, default=3, help="times that each command runs (default: 3)")
    given = parser.parse_args()
    print("| command | clock, s | CPU, s | imports |\n| --- | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in commands(given.runs, Path(folder)).items():
            rows = [measured(arguments, Path(folder), "bar" in name) for _ in range(given.n)]
            wall_s, cpu_s = (min(row[k] for row in rows) for k in (0, 1))
            print(f"| `{name}` | {wall_s:.1f} | {cpu_s:.1f} | {rows[0][2]} |", flush=True)


if __name__ == "__main__":
    main()
