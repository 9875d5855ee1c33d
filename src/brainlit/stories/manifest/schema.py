"""What a manifest says, as plain values; `manifest_reader` reads and checks it key by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from brainlit.stories.readers.transcripts import NOT_WORDS
from brainlit.stories.regions.config import RegionConfig

Clock = Literal["audio", "scanner"]


@dataclass(frozen=True)
class TierSpec:
    """Where words (or phones) are.

    Parameters
    ----------
    file : str
        TextGrid, CTM, or CSV/TSV with onset and duration.
    tier : str or None
        Tier of a TextGrid with several; recording of a CTM file with several.
    column : str or None
        Column of a table that holds the text.
    where : mapping of column to texts
        Only rows of a table whose cell in that column is one of the texts.
    clock : 'audio', 'scanner' or None
        Whether its times count from the start of the audio file or from the first volume (row 0 of the response
        file); None: from the first volume in files called *_events.tsv, as BIDS has it, else from the audio.
    """

    file: str
    tier: str | None = None
    column: str | None = None
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    clock: Clock | None = None

    @property
    def on_scanner_clock(self) -> bool:
        """Whether times count from the first volume."""
        return self.clock == "scanner" or (self.clock is None and self.file.endswith("_events.tsv"))


@dataclass(frozen=True)
class StorySpec:
    """One story: its sound, its words and its clock.

    Parameters
    ----------
    audio : str
        Any format that libsndfile reads, any rate, any number of channels.
    words, phones : TierSpec
        Phones may be missing; then so are the features that need them.
    tr_s : float or None
        Repetition time in seconds; None takes what NIfTI, CIFTI or the JSON beside an fMRIPrep run says.
    onset_s : float or None
        Where row 0 of the response file starts, in seconds of the audio file (negative if before the sound).
    tr_starts : str or None
        Instead of onset_s, a table with the start of each row of the response file, for an irregular clock.
    volumes_discarded : int
        Rows at the start of the response file that are not used; the clock moves with them.
    n_trs : int or None
        Rows that are used after those; longer files are cut. None uses all, and all files must be alike.
    repeats : tuple of str or 'all'
        Names of the presentations where the story was heard several times: for {repeat} in the response files, or
        runs and sessions of fMRIPrep (run-1, ses-2); 'all' takes every run that fMRIPrep has of it.
    silence_after_s : float
        How long the scanner may run on after the sound has ended; more is taken for a wrong clock.
    """

    audio: str
    words: TierSpec
    tr_s: float | None = None
    phones: TierSpec | None = None
    onset_s: float | None = None
    tr_starts: str | None = None
    volumes_discarded: int = 0
    n_trs: int | None = None
    repeats: tuple[str, ...] | Literal["all"] = ()
    silence_after_s: float = 0.0


@dataclass(frozen=True)
class Confounds:
    """Columns of a confounds table (names may hold *); the file is None where fMRIPrep's is found by its name."""

    columns: tuple[str, ...]
    file: str | None = None


@dataclass(frozen=True)
class ResponseSpec:
    """Where the responses are, and what is done to them.

    Parameters
    ----------
    file : str or None
        Path with {subject}, {story}, {repeat} and, for pairs of GIFTI files, {hemi} (L, R).
    fmriprep : str or None
        Instead of `file`, the folder of fMRIPrep's derivatives.
    task, space : str
        fMRIPrep: name of the task, and the output space as fMRIPrep takes it ('fsaverage5', 'fsLR:den-91k'). `space`
        may also be given for files: 'fsaverage5' places their columns on the surface.
    dataset : str or None
        Name inside an HDF5 file, with the same placeholders as `file`.
    mask : str or None
        NIfTI mask whose voxels are the columns. None with fMRIPrep: the voxels in all brain masks of a subject.
    columns : tuple of str or None
        Names of the columns; None takes the header of the file, if it has one.
    regions : mapping of name to column names, or None
        Named regions; None makes a region of each named column.
    region_files : RegionConfig or None
        Named regions from files.
    preprocessed : bool
        The values are clean: nothing is taken out, each column is only z-scored.
    high_pass_s, low_pass_s : float or None
        Slower than the first and faster than the second is taken out (seconds).
    confounds : Confounds or None
        What is regressed out together with them.
    """

    file: str | None = None
    fmriprep: str | None = None
    task: str = "{story}"
    space: str | None = None
    dataset: str | None = None
    mask: str | None = None
    columns: tuple[str, ...] | None = None
    regions: Mapping[str, tuple[str, ...]] | None = None
    region_files: RegionConfig | None = None
    preprocessed: bool = False
    high_pass_s: float | None = 128.0
    low_pass_s: float | None = None
    confounds: Confounds | None = None


@dataclass(frozen=True)
class Manifest:
    """A data set: its stories, its subjects with the stories that each heard, its responses and roles.

    Subjects are None where those that fMRIPrep has are taken.
    """

    name: str
    root: Path
    stories: Mapping[str, StorySpec]
    subjects: Mapping[str, tuple[str, ...]] | None
    responses: ResponseSpec
    roles: Mapping[str, tuple[str, ...]]
    not_words: frozenset[str] = field(default=NOT_WORDS)
    licence: str | None = None
    citation: str | None = None

    def settings(self) -> dict[str, Any]:
        """What decides how stories and responses look, as plain JSON: no folders, and not who is asked for."""
        said = asdict(self)
        for key in ("root", "subjects", "licence", "citation"):
            del said[key]
        said["not_words"] = sorted(self.not_words)
        if self.responses.fmriprep is not None:
            said["responses"]["fmriprep"] = Path(self.responses.fmriprep).name
        return _plain(said)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
