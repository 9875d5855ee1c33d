"""SLURP: requests to a home assistant with their intents (Bastianelli et al. 2020, arXiv 2011.13205).

The label is the intent, 'scenario_action' as in the authors' own evaluation; research code on brain-tuned models took
the action alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from brainlit.downstream.clip import Clip
from brainlit.downstream.data import files
from brainlit.downstream.task import Task, make_task
from brainlit.stories import SourceError

WHERE = "github.com/pswietojanski/slurp"
_WHERE_SOUND = "zenodo.org/record/4274930"
_FILES = {"train": "train.jsonl", "choose": "devel.jsonl", "test": "test.jsonl"}
MOST_MISSING = 0.001
"""Share of the listed recordings that may be missing: the archive is known to lack one of 72,396."""

Recordings = Literal["best", "all"]


@dataclass(frozen=True)
class _Request:
    """One line of a table: what was asked, and its recordings that are there, best first."""

    number: str
    text: str
    intent: str
    odd: bool
    sounds: tuple[Path, ...]
    missing: tuple[Path, ...]


def load(folder: Path, recordings: Recordings = "best", with_synthetic: bool = False) -> Task:
    """What a request is for: the intent, such as 'alarm_set'.

    Parameters
    ----------
    folder : Path
        The repository (dataset/slurp/*.jsonl) with audio/slurp_real in it; or a folder with the tables and slurp_real.
    recordings : {best, all}
        'best' takes one recording per sentence, with the lowest word error rate of the authors' recogniser (the first
        name if there are several), so that each sentence counts once; 'all' takes all.
    with_synthetic : bool
        Train on synthesised speech too (train_synthetic.jsonl, slurp_synth).

    Raises
    ------
    FileNotFoundError
        If a table, the folder of the sounds, or more than one in a thousand of the recordings is missing.
    SourceError
        If a line of a table is damaged.
    """
    files.require_option("recordings", recordings, ("best", "all"))
    tables = files.inside(files.need_folder(folder, "SLURP", WHERE), _FILES["train"], "dataset/slurp", "slurp")
    wanted = [(part, name, "slurp_real") for part, name in _FILES.items()]
    wanted += [("train", "train_synthetic.jsonl", "slurp_synth")] * with_synthetic
    requests: dict[str, list[_Request]] = {part: [] for part in _FILES}
    for part, name, sounds in wanted:
        lines = files.numbered_lines(tables / name, f"the requests of the part {part!r}", WHERE)
        home = files.inside(folder, sounds, "audio") / sounds
        files.need_folder(home, "the recordings of SLURP", _WHERE_SOUND)
        requests[part] += _requests(tables / name, lines, home)
    speakers = _speakers(tables / "metadata.json")
    examples = {
        part: [
            (Clip(f"{one.number}/{sound.stem}", sound, speaker=speakers.get(sound.name, ""), text=one.text), one.intent)
            for one in of_part
            for sound in (one.sounds[:1] if recordings == "best" else one.sounds)
        ]
        for part, of_part in requests.items()
    }
    facts = {**_FACTS, **_report(requests, recordings)}
    return make_task(
        "slurp/intent", "single", examples, metric="accuracy", facts=facts, drop_unknown=True, same_sound="drop"
    )


def _requests(path: Path, lines: Iterator[tuple[int, str]], sounds: Path) -> Iterator[_Request]:
    for number, line in lines:
        try:
            yield _request(json.loads(line), sounds)
        except (ValueError, KeyError, TypeError) as error:
            problem = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise SourceError(
                f"{path}, line {number}: {problem}. A line is one JSON object with slurp_id, sentence,"
                f" scenario, action and recordings; get the file again from {WHERE}."
            ) from error


def _request(row: dict[str, Any], sounds: Path) -> _Request:
    intent = f"{row['scenario']}_{row['action']}"
    listed = sorted(row["recordings"], key=lambda one: (_error_rate(one), one["file"]))
    paths = [sounds / one["file"] for one in listed]
    there = tuple(path for path in paths if path.is_file())
    missing = tuple(path for path in paths if path not in there)
    odd = row.get("intent", intent) != intent
    return _Request(str(row["slurp_id"]), files.plain_text(row["sentence"]), intent, odd, there, missing)


def _error_rate(recording: dict[str, Any]) -> float:
    """Word error rate of the authors' recogniser; recordings without one come last."""
    rate = recording.get("wer")
    return float("inf") if rate is None else float(rate)


def _speakers(path: Path) -> dict[str, str]:
    """Who speaks in each recording, if the authors' metadata are there."""
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8")).values()
        return {name: one["usrid"] for entry in entries for name, one in entry["recordings"].items()}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path} does not hold 'recordings' with a 'usrid' each. Get it again from {WHERE}, or remove it: then"
            " nobody knows who speaks."
        ) from error


def _report(requests: dict[str, list[_Request]], recordings: Recordings) -> dict[str, str]:
    """What was left out, and which sentences of the later parts are in train."""
    everything = [one for of_part in requests.values() for one in of_part]
    missing = [path for one in everything for path in one.missing]
    n_there = sum(len(one.sounds) for one in everything)
    if len(missing) > MOST_MISSING * (len(missing) + n_there):
        raise FileNotFoundError(
            f"{missing[0]} does not exist ({len(missing)} of {len(missing) + n_there} missing): a recording of SLURP;"
            f" get it from {_WHERE_SOUND}, or check the folder."
        )
    n_heard = sum(min(len(one.sounds), 1) for one in everything)
    left_out = [f"{len(missing)} recordings that are listed but not there"] * bool(missing)
    left_out += [f"{n_there - n_heard} further recordings of the same sentences"] * (recordings == "best")
    texts = {part: [one.text for one in of_part] for part, of_part in requests.items()}
    n_odd = sum(one.odd for one in everything)
    facts = {
        "labels": f"scenario_action; lines that call their intent otherwise: {n_odd}",
        "words heard in train": files.heard_before(texts),
    }
    return {**facts, "left_out": "; ".join(left_out)} if left_out else facts


_FACTS = {
    "source": "SLURP: 16,521 requests in 72,396 recordings",
    "licence": "texts CC BY 4.0, sounds CC BY-NC 4.0",
    "citation": "Bastianelli, Vanzo, Swietojanski & Rieser (2020), SLURP: A Spoken Language Understanding Resource"
    " Package, EMNLP, arXiv 2011.13205",
    "split": "the authors' train, devel (chooses) and test; speakers are in several parts",
}
