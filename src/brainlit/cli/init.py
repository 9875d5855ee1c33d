"""`brainlit init`: the experiments that travel inside the package, copied into a folder where they can be changed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from brainlit.cli.option_hints import OwnParser
from brainlit.files import write_bytes
from brainlit.hints import few
from brainlit.shipped import EXPERIMENTS, shipped_files, shipped_root

README = "BRAINLIT.md"
NEXT = "brainlit fit -c demo -c wav2vec"
TEXT = f"""\
# What to type next

```
brainlit doctor
{NEXT}
brainlit data info demo
```

The first looks at this machine. The second makes the demo data set (simulated listeners, nothing is downloaded),
teaches a tiny wav2vec 2.0 to hear phones, probes it, tunes it on the simulated brains, probes it again and ends with
the path of a report: some minutes on two cores. The third says what the data set holds.

`-c demo` is {EXPERIMENTS}/data/demo.yaml of this folder, yours to change; without it, the one that came with brainlit.
`{EXPERIMENTS}/README.md` lists all of them: a data set (`data/`), a model (`model/`), what it learns from (`regime/`),
what a paper did (`paper/`), settings of `brainlit probe` (`probe/`). `brain_tune.yaml`, which all runs have in common,
comes by itself. Your own file comes last:

```
{NEXT} -c permuted
{NEXT} -c mine.yaml --trainer.max_epochs 3
{NEXT} --print_config
```

Recordings: `brainlit data prepare --download lebel2023 --data.subjects [UTS03]`; `data/` has a card for each data set.
Stores go to `data/store/`, runs to `runs/`. `brainlit --help` lists the commands.
"""


def main(arguments: Sequence[str]) -> int:
    """Copy what is not there yet, and say what to type next.

    Raises
    ------
    FileExistsError
        If a file is there with other content; then nothing is written.
    """
    parser = OwnParser(
        prog="brainlit init",
        description=f"Copy the experiments that came with brainlit into FOLDER/{EXPERIMENTS}, and the cards and"
        " manifests of data sets, to read and to change; -c demo then takes the file in FOLDER. Files that differ are"
        " never overwritten.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER", help="default: this one")
    folder: Path = parser.parse_args(list(arguments)).folder
    written = copy_out(folder)
    what = f"{len(written)} files written" if written else "everything was there"
    print(f"{what}: {folder / EXPERIMENTS}, {folder / README}")
    enter = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(os.fspath(folder))} && "
    print(f"Next: {enter}{NEXT}")
    return 0


def copy_out(folder: Path) -> list[Path]:
    """Write what travels with brainlit, and what to type next, below the folder; files that are the same are kept.

    Returns
    -------
    list of Path
        What was written, below the folder.

    Raises
    ------
    FileExistsError
        If files are there that differ, or something that is no file; then nothing is written.
    """
    wanted = contents()
    if differ := [path for path, content in wanted.items() if _differs(folder / path, content)]:
        raise FileExistsError(
            f"{folder} has {few([str(path) for path in differ])} with other content than brainlit's own, which is kept:"
            " nothing was written. Give another folder (brainlit init FOLDER), or move these away first."
        )
    missing = [path for path in wanted if not (folder / path).exists()]
    for path in missing:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / path, wanted[path])
    return missing


def contents() -> Mapping[Path, bytes]:
    """All files of `brainlit init`, by their paths below its folder."""
    root = shipped_root()
    return {Path(README): TEXT.encode(), **{path: (root / path).read_bytes() for path in shipped_files(root)}}


def _differs(path: Path, content: bytes) -> bool:
    """Whether something else than this file is in its place, or a file where it needs a folder."""
    if path.is_file():
        return path.read_bytes() != content
    above = next(folder for folder in (path, *path.parents) if folder.exists())
    return above == path or not above.is_dir()
