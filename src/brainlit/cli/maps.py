"""`brainlit maps`: the per-voxel scores of a run's probes as files of other tools, in a BIDS derivative."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainlit.cli.errors import UsageError, quieten
from brainlit.cli.option_hints import OwnParser

if TYPE_CHECKING:
    from brainlit.results.run_directory import RunDirectory

DESCRIPTION = """\
Write the per-voxel scores of a run's probes for other tools, as a BIDS derivative: GIFTI and CIFTI for subjects whose
voxels lie on fsaverage5, NIfTI where they lie on a grid, HDF5 for cortex.load where they are those of a pycortex
subject. Before, after and their difference, with a sidecar beside each file. docs/reading.md says more."""
EXAMPLES = """\
examples:
  brainlit maps runs/brain_tune/ID
  brainlit maps runs/brain_tune/ID --measure r_backbone --layer all --format cifti
  brainlit maps runs/brain_tune/ID --measure partition --stage after --output maps
"""


def run_maps(arguments: Sequence[str]) -> int:
    """Write the maps; print where they are."""
    given = _parser().parse_args(list(arguments))
    from brainlit.results.maps import MapRequest, write_maps
    from brainlit.results.run_directory import read_json_if_there
    from brainlit.results.summary import RUN_FILE
    from brainlit.results.tables import SIMULATED

    quieten()
    run = _probed(given.run)
    request = MapRequest(
        measures=given.measure,
        layers=_layers(given.layer),
        stages=given.stage,
        formats=given.format,
        subjects=given.subjects,
        within_mm=given.within_mm,
        space=given.space,
        like=given.like,
        store=given.store or _store_of(run),
        overwrite=given.overwrite,
    )
    output = given.output or run.path / "maps"
    written = write_maps(run, output, request)
    if read_json_if_there(run.path / RUN_FILE).get("simulated"):
        print(SIMULATED)
    if run.state in ("running", "killed"):
        print(f"The run has not finished ({run.state}): these are the probes that there are.")
    for subject, files in written.items():
        kinds = sorted({path.name.partition(".")[2] for path in files})
        print(f"{subject}: {len(files)} files ({', '.join(kinds)})")
    print(f"Maps: {output}")
    return 0


def _parser() -> OwnParser:
    from brainlit.results.map_numbers import STAGES
    from brainlit.results.map_places import FORMATS, VOLUME_SPACE

    parser = OwnParser(
        prog="brainlit maps",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several: dict[str, Any] = {"nargs": "+", "default": ()}
    parser.add_argument("run", type=Path, help="a run's folder, or one that brainlit probe wrote")
    parser.add_argument("--output", type=Path, help="folder to write (default: RUN/maps)")
    parser.add_argument(
        "--measure",
        **several,
        help="r_backbone, ceiling, low_level_share, partition_backbone, ... or what several begin with: partition,"
        " split, impact (default: those four)",
    )
    parser.add_argument(
        "--layer",
        **several,
        help="numbers, or all: a map each, of r_backbone alone; -1 is the last (default: the compared one)",
    )
    parser.add_argument("--stage", **several, help=f"{', '.join(STAGES)} (default: all there are)")
    parser.add_argument("--format", **several, help=f"{', '.join(FORMATS)} (default: all that the places make)")
    parser.add_argument("--subjects", **several, metavar="NAME", help="whose maps (default: all)")
    parser.add_argument(
        "--within-mm",
        type=float,
        default=0.0,
        help="surfaces: a vertex takes the nearest voxel within this distance, 4 as in the report; 0 leaves numbers at"
        " the vertices of their voxels (default: 0)",
    )
    parser.add_argument(
        "--space",
        default="",
        help="volumes: name of their space in BIDS, such as MNI152NLin2009cAsym (default: the standard space that the"
        f" run's probes name, or {VOLUME_SPACE}, that of the responses)",
    )
    parser.add_argument(
        "--like", type=Path, help="volumes: image whose grid they get (default: the smallest box around the voxels)"
    )
    parser.add_argument("--store", type=Path, help="the run's story store, where it has moved")
    parser.add_argument("--overwrite", action="store_true", help="replace the maps of another run")
    return parser


def _layers(said: Sequence[str]) -> Sequence[int] | str:
    if list(said) == ["all"]:
        return "all"
    try:
        return [int(layer) for layer in said]
    except ValueError as error:
        raise UsageError(f"--layer is {' '.join(said)!r}; give numbers, or all.") from error


def _probed(path: Path) -> RunDirectory:
    """A run, or a folder of `brainlit probe`, which has no status."""
    from brainlit.results.record import record_files
    from brainlit.results.run_directory import STATUS_FILE, RunDirectory

    is_probe = not (path / STATUS_FILE).is_file() and bool(record_files(path / "probes"))
    return RunDirectory(path) if is_probe else RunDirectory.open(path)


def _store_of(run: RunDirectory) -> Path | None:
    """Where the run's configuration has its story store; None where it says nothing."""
    from brainlit.cli.trust import run_config
    from brainlit.results.run_directory import CONFIG_FILE

    if not (run.path / CONFIG_FILE).is_file():
        return None
    store = run_config(run.path)["data"].get("store_dir")
    return None if store is None else Path(str(store))
