"""`brainlit downstream`: what the models of a run, or any speech model, know besides the brain."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from brainlit.cli.downstream_options import DATA, DEMO, RECOGNITION, WORDS, asking, checked_tasks, options_parser

if TYPE_CHECKING:
    from brainlit.cli.downstream_sources import Asked
    from brainlit.downstream.run_models import Asking, Model, Question
    from brainlit.downstream.story_words import StoryWords


def main(arguments: Sequence[str]) -> int:
    """Ask what has no answer yet, print the tables, write scores.csv."""
    given = options_parser().parse_args(list(arguments))
    names = checked_tasks(given)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from brainlit.cli.downstream_sources import of_model, of_run
    from brainlit.cli.downstream_tables import report, write_scores
    from brainlit.downstream.run_models import folders_of, set_beside

    how = asking(given)
    everybody = [of_run(path, given) for path in given.runs] or [of_model(given)]
    _answer(everybody, names, given, how)
    for asked in everybody:
        set_beside(folders_of(asked.root))
        print(f"\n{report(asked.root, names)}\n\nScores: {write_scores(asked.root)}")
    return 0


def _answer(everybody: Sequence[Asked], names: Sequence[str], given: argparse.Namespace, how: Asking) -> None:
    """Ask every model what it has not answered; speech is made or read once for all of them."""
    from brainlit.downstream.run_files import model_folder
    from brainlit.downstream.run_models import ask

    open_ = [
        (asked, one, _unanswered(asked, one, names, given.again, how)) for asked in everybody for one in asked.models
    ]
    words = {asked.root: _words(asked, given.task is not None) for asked, _, missing in open_ if WORDS in missing}
    tasks = _tasks([name for name in names if any(name in missing for _, _, missing in open_)], given)
    for asked, model, missing in open_:
        spoken = words.get(asked.root) if WORDS in missing else None
        questions: list[Question] = [tasks[name] for name in missing if name != WORDS]
        questions += [] if spoken is None else [spoken]
        if questions:
            print(f"{asked.root}: {model.name} ({model.origin}), {len(questions)} tasks")
            ask(model, model_folder(asked.root, model.name), questions, how)


def _unanswered(asked: Asked, model: Model, names: Sequence[str], again: bool, how: Asking) -> list[str]:
    """The tasks that the model has not answered; says what is kept."""
    from brainlit.downstream.run_files import WORDS_FILE, model_folder
    from brainlit.downstream.run_models import answer_path, is_answered

    folder = model_folder(asked.root, model.name)
    paths = {name: answer_path(folder, name, name in RECOGNITION) for name in names}
    paths[WORDS] = folder / WORDS_FILE
    kept = [name for name in names if not again and is_answered(paths[name], model, how)]
    if kept:
        print(f"{folder} has {', '.join(kept)}: kept (--again makes them anew)")
    return [name for name in names if name not in kept]


def _words(asked: Asked, by_name: bool) -> StoryWords | None:
    """The words of the stories; where tasks were not named and there are no such words, that is said."""
    from brainlit.downstream.word_lists import WordListMissingError
    from brainlit.store import StoreError

    if asked.words is None:
        return None
    try:
        return asked.words()
    except (WordListMissingError, StoreError, FileNotFoundError, ValueError) as error:
        if by_name:
            raise
        print(f"{asked.root}: the task words is left out. {error}")
        return None


def _tasks(names: Sequence[str], given: argparse.Namespace) -> dict[str, Any]:
    """The tasks, called as they were asked for."""
    from brainlit.downstream import data
    from brainlit.downstream.demo_tasks import demo_tasks

    found: dict[str, Any] = dict(demo_tasks([name for name in names if name in DEMO], seed=given.seed))
    for name in names:
        if name in DATA:
            found[name] = replace(data.TASKS[DATA[name][0]](given.data), name=name)
        elif name in RECOGNITION:
            found[name] = replace(data.RECOGNITION[RECOGNITION[name][0]](given.data), name=name)
    return found
