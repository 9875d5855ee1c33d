"""The help that people read first: short, true to the parser and the shipped files; and words for every option."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from jsonargparse import ArgumentParser

from brainlit.cli import TRAINING, VERBS, main
from brainlit.cli.option_hints import OwnParser
from brainlit.cli.probe import HELP as PROBE_HELP
from brainlit.cli.probe_settings import setting_names, words_of_fields
from brainlit.cli.refusals import HintingParser
from brainlit.cli.short_help import OPTIONS, short_help
from brainlit.cli.training import ParsingCLI, parsed

ROOT = Path(__file__).parents[2]
CONFIGS = [
    part
    for name in ("brain_tune", "model/wav2vec", "data/demo")
    for part in ("-c", str(ROOT / f"experiments/{name}.yaml"))
]
OF_THE_PARSER = re.compile(r"\((?:required, )?type: .*", re.DOTALL)
MOST_LINES = 40


@pytest.fixture
def attribute_docstrings() -> Iterator[None]:
    """Help takes the words below fields of dataclasses, as --help-all asks for; given back afterwards."""
    with words_of_fields():
        yield


def _wordless(actions: Sequence[argparse.Action]) -> list[str]:
    """Options whose help, without what the parser adds about types, has no more than two words."""
    shown = [action for action in actions if action.help != argparse.SUPPRESS]
    few = (action for action in shown if len(OF_THE_PARSER.sub("", action.help or "").split()) <= 2)
    return [str(action.option_strings or action.dest) for action in few]


@pytest.fixture(scope="module")
def known() -> set[str]:
    """All options of test, which are those of fit and --ckpt_path, and what stands before any parser."""
    parser = ParsingCLI("test", CONFIGS).parser
    assert isinstance(parser, HintingParser)
    return {f"--{key}" for key in parser.known_keys()} | {"--help-all", "--trust", "--print_config"}


@pytest.mark.parametrize("verb", TRAINING)
def test_the_short_help_fits_a_screen_and_names_options_that_exist(
    verb: str, known: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "--help"]) == 0
    said = capsys.readouterr().out
    assert said == short_help(verb)
    assert len(said.splitlines()) <= MOST_LINES
    assert max(map(len, said.splitlines())) <= 120
    named = set(re.findall(r"--[a-z][\w.]*(?:-all)?", said)) - {"--data.source.help", "--trainer.callbacks.help"}
    assert named <= known
    assert {option.name for option in OPTIONS[verb]} <= known


def test_the_defaults_that_the_short_help_names_are_those_of_the_shipped_files() -> None:
    resolved = parsed("fit", CONFIGS).resolved
    (probe,) = (one for one in resolved["trainer"]["callbacks"] if one["class_path"].endswith(".BandedRidgeProbe"))
    assert len(OPTIONS["fit"]) >= 10
    for option in OPTIONS["fit"]:
        group, *keys = option.name.removeprefix("--").split(".")
        value: Any = probe["init_args"] if group == "probe" else resolved[group]
        for key in keys:
            value = value.get(key)
        if option.name == "--data.batch_size":
            assert resolved["data"]["batch_size"] == 4, "the demo's own"
            value = _default("data.batch_size")
        assert value == option.default, option.name


def _default(key: str) -> Any:
    parser = parsed("fit", CONFIGS).parser
    return next(action.default for action in parser._actions if action.dest == key)


def test_all_options_are_listed_when_asked_for(known: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--help-all"])
    assert not ended.value.code
    said = capsys.readouterr().out
    for option in (known - {"--ckpt_path", "--trust", "--help-all"}) | {f"--probe.{name}" for name in setting_names()}:
        assert option in said


@pytest.mark.usefixtures("attribute_docstrings")
def test_every_option_of_fit_and_probe_has_words() -> None:
    from brainlit.cli.probe_options import ProbeCLI

    for cli in (ParsingCLI("test", CONFIGS), ProbeCLI(CONFIGS, {})):
        assert len(cli.parser._actions) > 150
        assert _wordless(cli.parser._actions) == []


def _named_classes() -> list[str]:
    """All classes that a file of experiments/ names."""

    def found(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if "class_path" in value:
                yield str(value["class_path"])
            value = list(value.values())
        if isinstance(value, list):
            for one in value:
                yield from found(one)

    files = sorted((ROOT / "experiments").rglob("*.yaml"))
    callbacks = [f"brainlit.callbacks.{name}" for name in import_module("brainlit.callbacks").__all__]
    named = {name for file in files for name in found(yaml.safe_load(file.read_text(encoding="utf-8")))}
    return sorted({*named, *callbacks})


@pytest.mark.usefixtures("attribute_docstrings")
def test_every_setting_of_every_data_set_and_callback_has_words() -> None:
    names = [name for name in _named_classes() if name.startswith("brainlit.")]
    assert len(names) > 10
    for name in names:
        module, _, kind = name.rpartition(".")
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(getattr(import_module(module), kind), "it", fail_untyped=False)
        assert _wordless(parser._actions) == [], name


class _SeenError(Exception):
    """Carries the parser that a verb makes."""


def _parser_of(command: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    made: list[argparse.ArgumentParser] = []

    def seen(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        made.append(parser)
        raise _SeenError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", seen)
    with pytest.raises(_SeenError):
        main(list(command))
    return made[0]


@pytest.mark.parametrize("verb", [*(verb for verb in VERBS if verb not in ("data", "probe")), "probe --compare a b"])
def test_every_option_of_the_other_verbs_has_words(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = _parser_of(verb.split(), monkeypatch)
    assert _wordless(parser._actions) == []
    assert verb == "doctor" or isinstance(parser, OwnParser), "what it refuses comes with a hint"
    assert parser.description


@pytest.mark.parametrize("action", ["download", "prepare", "check", "info"])
def test_every_option_of_the_data_verbs_has_words(action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _wordless(_parser_of(["data", action, "x"], monkeypatch)._actions) == []


def test_the_help_of_the_command_and_of_probe_fit_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) <= MOST_LINES
    assert len(PROBE_HELP.splitlines()) <= MOST_LINES
