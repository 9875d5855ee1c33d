"""The per-voxel scores of a run's probes as a BIDS derivative, for other tools.

One file holds one measure at one stage (before, after, difference) of one subject, a map for each layer, and has a
sidecar beside it. BIDS 1.10 names no statistical maps; names follow the proposal for them and fitlins: `stat-<label>`
and `_statmap`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from brainlit import __version__
from brainlit.encoding.arrays import FloatArray
from brainlit.files import only_writer, remove, write_json
from brainlit.guard import UnreadableFileError
from brainlit.hints import did_you_mean
from brainlit.results.map_files import STRUCTURES, on_fsaverage5, write_cifti, write_gifti, write_nifti, write_pycortex
from brainlit.results.map_numbers import ALIGNMENT, CEILING, STAGES, MapsError, SubjectProbes, find_probes, formula_of
from brainlit.results.map_places import FORMATS, VOLUME_SPACE, Places, all_places
from brainlit.results.run_directory import (
    PROVENANCE_FILE,
    RunDirectory,
    read_json,
    read_json_if_there,
    write_text_atomic,
)
from brainlit.results.scores import LABELS
from brainlit.results.summary import RUN_FILE
from brainlit.results.tables import SIMULATED

DESCRIPTION_FILE = "dataset_description.json"
BIDS_VERSION = "1.10.0"
DEFAULT_MEASURES = (ALIGNMENT, CEILING, "low_level_share", "partition_backbone")
_NO_NUMBER = (
    "NaN: voxels that were dropped (responses not finite, or constant) or left out of a thinned probe, and where the"
    " formula has no value"
)
_OPENNEURO = {"lebel2023": "ds003020", "narratives": "ds002345", "petit_prince": "ds003643", "alice_bids": "ds002322"}
"""Published data sets by the name of their source."""


@dataclass(frozen=True, kw_only=True)
class MapRequest:
    """Which maps of a run are wanted, and how.

    Parameters
    ----------
    measures : sequence of str
        Names of per-voxel numbers ('r_backbone', 'partition_backbone') or what several begin with ('partition'); empty
        for those of DEFAULT_MEASURES that there are.
    layers : sequence of int, or 'all'
        Empty for the compared one; negative ones count from the end.
    stages, formats, subjects : sequence of str
        Of STAGES, FORMATS and the run's subjects; empty for all there are.
    within_mm : float
        As `on_fsaverage5` has it.
    space : str
        What BIDS calls the space of the responses' volumes; empty for the standard space that a subject's last record
        names, or VOLUME_SPACE where it names none.
    like : Path, optional
        Image whose grid volumes get; by default the smallest box around the voxels.
    store : Path, optional
        The story store of the run; read only where records do not say where voxels lie.
    overwrite : bool
        Replace the maps of another run.
    """

    measures: Sequence[str] = ()
    layers: Sequence[int] | str = ()
    stages: Sequence[str] = ()
    formats: Sequence[str] = ()
    subjects: Sequence[str] = ()
    within_mm: float = 0.0
    space: str = ""
    like: Path | None = None
    store: Path | None = None
    overwrite: bool = False


# --- What is written ---


def write_maps(run: RunDirectory, output: Path, request: MapRequest) -> dict[str, list[Path]]:
    """Write the maps of a run into a folder; returns the files of each subject, without sidecars.

    Everything that can be is checked before anything is written. Each file is there whole or not at all, and is
    replaced by the same one where the call is repeated.

    Raises
    ------
    FileNotFoundError
        If the run was not probed.
    MapsError
        If something is asked for that there is not, a subject has no known places, or the folder holds something else.
    """
    probes = find_probes(run)
    for what, asked, known in (("stage", request.stages, STAGES), ("format", request.formats, FORMATS)):
        _require(what, asked, known)
    _require("subject", request.subjects, list(probes))
    if not re.fullmatch(r"[A-Za-z0-9]*", request.space):
        raise MapsError(f"the space is {request.space!r}; BIDS has letters and digits, such as MNI152NLin2009cAsym.")
    probes = {name: own for name, own in probes.items() if not request.subjects or name in request.subjects}
    labels = _subject_labels(probes)
    plans = {name: _planned(own, request) for name, own in probes.items()}
    records = {name: own.last.record for name, own in probes.items()}
    places = all_places(run, records, request.formats, request.store, request.like)
    of_another = _holds_another(output, run)
    if of_another and not request.overwrite:
        raise MapsError(f"{output} holds {of_another}. Give another --output, or --overwrite to replace them.")
    with only_writer(output, output.name):
        if of_another:
            for path in output.glob("sub-*/func/sub-*_statmap.*"):
                remove(path)
        _write_about(output, run)
        jobs = [(name, file) for name, plan in plans.items() for file in plan]
        written: dict[str, list[Path]] = {name: [] for name in plans}
        for name, file in tqdm(jobs, desc="maps", unit="map", leave=False):
            writer = _SubjectWriter(run, output / f"sub-{labels[name]}", probes[name], places[name], request)
            written[name] += writer.write(file)
    return written


@dataclass(frozen=True)
class _File:
    """What one file holds, in whatever format; stage is empty for what does not depend on the model."""

    measure: str
    stage: str
    layers: Sequence[int]

    @property
    def labels(self) -> dict[str, str]:
        """Its part of the name in BIDS."""
        first, last = self.layers[0], self.layers[-1]
        run = list(self.layers) == list(range(first, last + 1))
        layers = f"{first}to{last}" if run and first < last else "x".join(map(str, self.layers))
        desc = f"{self.stage}Layer{'s' * (first != last)}{layers}" if self.stage else ""
        return {"stat": _label(self.measure), "desc": desc}

    @property
    def maps(self) -> list[str]:
        """What each map is called inside the file."""
        return [f"{self.measure} {self.stage} layer {layer}" if self.stage else self.measure for layer in self.layers]


def _planned(probes: SubjectProbes, request: MapRequest) -> list[_File]:
    """What is written of a subject; refuses what its records do not hold."""
    probe = probes.last
    subject, layers, known = probe.record.subject, probe.layers(request.layers), probes.measures
    if probes.before is not None:
        probes.before.layers(request.layers)
    only_r = layers != [probe.record.layer]
    measures: list[str] = []
    for name in request.measures or [one for one in ([ALIGNMENT] if only_r else DEFAULT_MEASURES) if one in known]:
        found = [name] if name in known else [one for one in known if one.startswith(f"{name}_")]
        if not found:
            raise MapsError(f"there is no {name!r} of the voxels of {subject}. {did_you_mean(name, known)}")
        measures += found
    measures = list(dict.fromkeys(measures))
    if only_r and measures != [ALIGNMENT]:
        raise MapsError(
            f"of layers other than the compared one ({probe.record.layer}) only {ALIGNMENT} is kept; leave --layer out,"
            f" or ask for --measure {ALIGNMENT} alone."
        )
    missing = [stage for stage in request.stages if stage not in probes.stages]
    if missing:
        raise MapsError(f"there is no {missing[0]!r} of {subject}; there is {', '.join(probes.stages)}.")
    stages = [stage for stage in STAGES if stage in (request.stages or probes.stages)]
    return [
        _File(measure, stage, [probe.record.layer] if measure == CEILING else layers)
        for measure in measures
        for stage in ([""] if measure == CEILING else stages)
    ]


class _SubjectWriter:
    """Writes files of one subject."""

    def __init__(
        self, run: RunDirectory, folder: Path, probes: SubjectProbes, places: Places, request: MapRequest
    ) -> None:
        self.run, self.folder, self.probes, self.places, self.request = run, folder, probes, places, request
        self.formats = {name for name in places.formats if name in (request.formats or FORMATS)}

    def write(self, file: _File) -> list[Path]:
        """One measure at one stage in all formats that the places make, each with its sidecar."""
        values = self.probes.read(file.measure, file.stage, file.layers)
        said = self._sidecar(file, values)
        written = self._on_surfaces(file, values, said) if self.formats & {"gifti", "cifti"} else []
        if "nifti" in self.formats and self.places.grid is not None:
            space = self.request.space or str(self.probes.last.record.facts.get("space") or VOLUME_SPACE)
            path = self._path(file, ".nii.gz", space=space)
            write_nifti(path, self.places.grid, values, space)
            here = {"SpatialReference": "the images that the responses come from", "OutsideOfVoxels": "NaN"}
            written.append(_with_sidecar(path, {**said, **here}))
        if "pycortex" in self.formats and self.places.pycortex is not None:
            where = self.places.pycortex
            path = self._path(file, ".hdf", space=where.transform)
            maps = {re.sub(r"\W+", "_", name): row for name, row in zip(file.maps, values, strict=True)}
            write_pycortex(path, where, maps, said["Description"], signed=file.stage == "difference")
            here = {
                "SpatialReference": f"pycortex subject {where.subject}, transform {where.transform}, mask {where.mask}"
            }
            written.append(_with_sidecar(path, {**said, **here, "Views": list(maps)}))
        return written

    def _on_surfaces(self, file: _File, values: FloatArray, said: Mapping[str, Any]) -> list[Path]:
        vertices, within_mm = self.places.vertices, self.request.within_mm
        assert vertices is not None
        how = (
            f"a vertex takes the nearest voxel within {within_mm:g} mm on the pial surface"
            if within_mm > 0
            else "numbers stay at the vertices of their voxels"
        )
        here = {**said, "SpatialReference": "fsaverage5", "Sampling": f"{how}; voxels at one vertex are averaged"}
        halves, written = on_fsaverage5(vertices, values, within_mm), []
        for hemi, half in halves.items() if "gifti" in self.formats else ():
            path = self._path(file, ".func.gii", hemi=hemi, space="fsaverage5")
            write_gifti(path, hemi, half, file.maps)
            written.append(_with_sidecar(path, {**here, "AnatomicalStructurePrimary": STRUCTURES[hemi]}))
        if "cifti" in self.formats:
            path = self._path(file, ".dscalar.nii", space="fsaverage5")
            write_cifti(path, halves, file.maps)
            written.append(_with_sidecar(path, here))
        return written

    def _path(self, file: _File, extension: str, *, space: str, hemi: str = "") -> Path:
        entities = {"hemi": hemi, "space": _label(space), **file.labels}
        parts = [self.folder.name, *(f"{key}-{value}" for key, value in entities.items() if value)]
        return self.folder / "func" / f"{'_'.join(parts)}_statmap{extension}"

    def _sidecar(self, file: _File, values: FloatArray) -> dict[str, Any]:
        about, records = read_json_if_there(self.run.path / RUN_FILE), self.probes.records(file.stage)
        record, facts = records[-1], records[-1].facts
        layers = ", ".join(map(str, file.layers))
        when = f", {file.stage}, layer{'s' * (len(file.layers) > 1)} {layers}" if file.stage else ""
        label = LABELS.get(file.measure, file.measure.replace("_", " "))
        whose = f"{label} of the voxels of {record.subject}{when}."
        formula = formula_of(file.measure)
        return {
            "Description": " ".join([whose, *([SIMULATED] if about.get("simulated") else [])]),
            "Formula": f"after - before of: {formula}" if file.stage == "difference" else formula,
            "Units": "percent" if file.measure.startswith("impact") else "1",
            "Maps": file.maps,
            "Measure": file.measure,
            "Stage": file.stage or "the responses alone",
            "Epoch": [one.epoch for one in records] if len(records) > 1 else record.epoch,
            "Layer": None if not file.stage else file.layers[0] if len(file.layers) == 1 else list(file.layers),
            "ScoredStories": list(facts.get("score_stories", [])),
            "ScoredSpans": list(facts.get("score_spans", [])),
            "NumberOfTRs": facts.get("n_score_trs"),
            "NumberOfVoxels": values.shape[1],
            "NumberOfVoxelsWithNumber": [int(n) for n in np.isfinite(values).sum(axis=1)],
            "NoNumber": _NO_NUMBER,
            "Simulated": bool(about.get("simulated")),
            "Model": about.get("model"),
            "Regime": about.get("regime"),
            "Run": _run_name(self.run),
            "Fingerprint": record.fingerprint,
        }


def _with_sidecar(path: Path, said: Mapping[str, Any]) -> Path:
    write_json(path.with_name(f"{path.name.partition('.')[0]}.json"), said, allow_nan=False)
    return path


def _label(name: str) -> str:
    """A name as BIDS has labels: letters and digits.

    >>> _label("partition_backbone&low_level"), _label("r2_backbone+low_level")
    ('partitionBackboneAndLowLevel', 'r2BackbonePlusLowLevel')
    """
    first, *others = re.findall(r"[A-Za-z0-9]+", name.replace("&", "_and_").replace("+", "_plus_"))
    return "".join([first, *(word[:1].upper() + word[1:] for word in others)])


def _subject_labels(subjects: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """The subjects' labels in BIDS, which have neither a prefix nor anything but letters and digits."""
    labels = {name: re.sub(r"[^A-Za-z0-9]", "", name.removeprefix("sub-")) for name in subjects}
    for name, label in labels.items():
        twins = [other for other, its in labels.items() if its == label]
        if not label or len(twins) > 1:
            raise MapsError(
                f"in BIDS {' and '.join(twins)} would be called sub-{label}, for labels have letters and digits alone."
                f" Write them one at a time: --subjects {name} --output FOLDER."
            )
    return labels


def _require(what: str, asked: Sequence[str], known: Sequence[str]) -> None:
    for name in asked:
        if name not in known:
            raise MapsError(f"there is no {what} {name!r}. {did_you_mean(name, known)}")


# --- The folder ---


def _run_name(run: RunDirectory) -> str:
    """As its status has it, wherever the folder has come to lie."""
    path, said = run.path.resolve(), run.status
    return f"{said.get('experiment', path.parent.name)}/{said.get('id', path.name)}"


def _identity(run: RunDirectory) -> dict[str, Any]:
    """What tells this run from every other."""
    started = (run.status.get("starts") or [read_json_if_there(run.path / PROVENANCE_FILE).get("written")])[0]
    return {"Run": _run_name(run), "Started": started}


def _holds_another(output: Path, run: RunDirectory) -> str:
    """What other run's maps a folder holds, in words; empty where there are none.

    Raises
    ------
    MapsError
        If it holds something else than maps.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return ""
    description = output / DESCRIPTION_FILE
    try:
        said = read_json(description).get("brainlit") if description.is_file() else None
    except UnreadableFileError:
        said = None
    if not isinstance(said, dict) or "Run" not in said:
        raise MapsError(
            f"{output} holds something else than maps of brainlit, and is left alone. Give another --output."
        )
    return "" if said == _identity(run) else f"the maps of another run ({said['Run']}, started {said.get('Started')})"


def _write_about(output: Path, run: RunDirectory) -> None:
    """The description of the data set, its README, and which of its files BIDS has no rule for yet."""
    facts = read_json_if_there(run.path / RUN_FILE)
    simulated = [SIMULATED] if facts.get("simulated") else []
    published = _OPENNEURO.get(facts.get("data_module", {}).get("store", ""))
    sources = [{"URL": f"https://openneuro.org/datasets/{published}"}]
    description = {
        "Name": " ".join([f"Scores of encoding models per voxel, run {_run_name(run)}.", *simulated]),
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "brainlit", "Version": __version__, "Description": "brainlit maps"}],
        **({"SourceDatasets": sources} if published else {}),
        "brainlit": _identity(run),
    }
    write_json(output / DESCRIPTION_FILE, description, allow_nan=False)
    write_text_atomic(output / ".bidsignore", "*_statmap.*\n")
    about = [facts.get("model"), facts.get("regime_words") or facts.get("regime"), facts.get("data")]
    parts = [
        f"# Maps of the run {_run_name(run)}",
        *simulated,
        f"{'; '.join(str(part) for part in about if part)}.",
        "Written by `brainlit maps`. Each file holds one measure (`stat-`) at one stage (`desc-`: before or after"
        " tuning, or their difference), a map for each layer; the sidecar beside it says what the numbers are, what"
        " they rest on and where there are none (NaN). BIDS has no names for statistical maps yet: `.bidsignore` lists"
        " them.",
    ]
    write_text_atomic(output / "README.md", "\n\n".join(parts) + "\n")
