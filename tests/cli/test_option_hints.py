"""Every option of a verb, spoilt as people spoil them, is asked back; what is asked back exists and is another."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from brainlit.cli.data import EXAMPLES
from brainlit.cli.data import _parser as data_parser
from brainlit.cli.downstream import options_parser
from brainlit.cli.errors import UsageError
from brainlit.cli.option_hints import _SAME, SYNONYMS, OwnParser, meant
from brainlit.cli.probe_options import OWN, ProbeCLI
from brainlit.cli.refusals import HintingParser, hints_for
from brainlit.cli.training import parsed

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
CONFIGS = [
    part for name in ("brain_tune", "model/wav2vec", "data/demo") for part in ("-c", str(EXPERIMENTS / f"{name}.yaml"))
]
Spoil = Callable[[str, np.random.Generator], str]


@pytest.fixture(scope="module")
def fit_keys() -> list[str]:
    """All options of fit."""
    parser = parsed("fit", CONFIGS).parser
    assert isinstance(parser, HintingParser)
    return parser.known_keys()


@pytest.fixture(scope="module")
def keys_of(fit_keys: list[str]) -> dict[str, list[str]]:
    """Verb -> all of its options, without dashes before them."""
    probe = ProbeCLI(CONFIGS, {}).parser
    assert isinstance(probe, HintingParser)
    prepare = sorted({*fit_keys, *data_parser("prepare").known_keys()})
    return {
        "fit": fit_keys,
        "probe": sorted({*probe.known_keys(), *OWN}),
        "downstream": options_parser().known_keys(),
        "data prepare": prepare,
    }


def names_in(hints: Iterable[str]) -> list[str]:
    """The names of all hints: those that are asked back, and those that a group takes."""
    found: list[str] = []
    for hint in hints:
        if asked := re.fullmatch(r"Did you mean (.*)\?", hint):
            found += asked[1].split(" or ")
        else:
            taken = re.fullmatch(r"(\S+) takes (.*)\.", hint)
            assert taken, hint
            found += [f"{taken[1]}.{name}" for name in re.sub(r" and \d+ more$", "", taken[2]).split(", ")]
    return found


def _asked(key: str, known: list[str]) -> list[str]:
    """The names that the hint asks back, or lists."""
    found = names_in(meant(key, known, "--"))
    assert all(name.startswith("--") for name in found)
    return [name[2:] for name in found]


def _letter(key: str, draws: np.random.Generator) -> int:
    """The place of a letter that has a letter behind it, in the last part of a key."""
    begins = key.rfind(".") + 1
    places = [k for k in range(begins, len(key) - 1) if (key[k] + key[k + 1]).isalpha()]
    return int(draws.choice(places or [begins]))


def _left_out(key: str, draws: np.random.Generator) -> str:
    k = _letter(key, draws)
    return key[:k] + key[k + 1 :]


def _doubled(key: str, draws: np.random.Generator) -> str:
    k = _letter(key, draws)
    return key[:k] + key[k] + key[k:]


def _swapped(key: str, draws: np.random.Generator) -> str:
    k = _letter(key, draws)
    return key[:k] + key[k : k + 2][::-1] + key[k + 2 :]


def _another(key: str, draws: np.random.Generator) -> str:
    k = _letter(key, draws)
    return key[:k] + ("x" if key[k] != "x" else "q") + key[k + 1 :]


@pytest.mark.parametrize("verb", ["fit", "probe", "downstream", "data prepare"])
def test_a_slip_of_one_letter_is_asked_back_as_what_was_meant(verb: str, keys_of: dict[str, list[str]]) -> None:
    draws = np.random.default_rng(0)
    known = [key for key in keys_of[verb] if not key.endswith("+")]
    assert len(known) > (15 if verb == "downstream" else 200)
    for key in known:
        for spoil in (_left_out, _doubled, _swapped, _another):
            given = spoil(key, draws)
            if given in known:  # what was typed exists
                continue
            asked = _asked(given, known)
            assert key in asked, (given, asked)
            assert given not in asked
            assert set(asked) <= set(known)


@pytest.mark.parametrize("verb", ["fit", "probe", "downstream", "data prepare"])
def test_dashes_for_underscores_and_capitals_are_asked_back(verb: str, keys_of: dict[str, list[str]]) -> None:
    known = [key for key in keys_of[verb] if not key.endswith("+")]
    for key in known:
        for given in {key.replace("_", "-"), key.replace("-", "_"), key.upper(), f"{key}s"} - set(known):
            assert key in _asked(given, known), given


@pytest.mark.parametrize("verb", ["fit", "probe", "data prepare"])
def test_an_end_of_an_option_is_asked_back_with_what_stands_before_it(verb: str, keys_of: dict[str, list[str]]) -> None:
    known = [key for key in keys_of[verb] if not key.endswith("+")]
    lasts = [key.rsplit(".", 1)[-1] for key in known]
    for key in known:
        for given in _tails(key):
            if given in known:
                continue
            asked = _asked(given, known)
            assert asked, given
            assert given not in asked
            assert set(asked) <= set(known)
            if lasts.count(given) == 1 and given not in (*SYNONYMS, *_SAME):
                assert key in asked


def _tails(key: str) -> Iterator[str]:
    parts = key.split(".")
    return (".".join(parts[k:]) for k in range(1, len(parts)))


def test_every_word_for_a_setting_leads_to_options_that_fit_or_another_verb_has(keys_of: dict[str, list[str]]) -> None:
    later = {"run.name", "run.project", "name", "seeds", "root", "experiment", "ckpt_path"}
    """Of other verbs, or not there yet."""
    everywhere = {key for keys in keys_of.values() for key in keys} | later
    assert {name for names in SYNONYMS.values() for name in names} <= everywhere
    assert set(_SAME.values()) <= set(SYNONYMS)
    for word in {*SYNONYMS, *_SAME} - {"task", "tasks", "benchmark"} - set(keys_of["fit"]):
        asked = _asked(word, keys_of["fit"])
        assert asked, word
        assert set(asked) <= set(keys_of["fit"])


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("model.learning_rate", "--model.backbone_lr or --model.head_lr"),
        ("lr", "--model.backbone_lr or --model.head_lr"),
        ("model.lr", "--model.backbone_lr or --model.head_lr"),
        ("epochs", "--trainer.max_epochs"),
        ("trainer.epochs", "--trainer.max_epochs"),
        ("batch-size", "--data.batch_size"),
        ("seed", "--seed_everything"),
        ("gpus", "--trainer.devices or --trainer.accelerator"),
        ("trainer.gpus", "--trainer.devices or --trainer.accelerator"),
        ("subjects", "--data.subjects"),
        ("layers", "--probe.layers or --model.layer or --model.trainable.first_layer"),
        ("weights", "--model.backbone.weights"),
        ("backbone.family", "--model.backbone.family"),
        ("alphas", "--probe.alphas"),
        ("trainer.callbacks.probe.alphas", "--probe.alphas"),
        ("trainer.callback+", "--trainer.callbacks+"),
    ],
)
def test_words_of_this_field_are_understood(typed: str, asked: str, fit_keys: list[str]) -> None:
    assert list(meant(typed, fit_keys, "--")) == [f"Did you mean {asked}?"]


def test_nothing_like_it_is_no_question(fit_keys: list[str]) -> None:
    assert list(meant("qqqq", fit_keys, "--")) == []
    assert all(hint.startswith("--trainer takes ") for hint in meant("trainer.qqqq", fit_keys, "--"))


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--lr", "1"], "Did you mean --model.backbone_lr or --model.head_lr?"),
        (["-lr", "1"], "Did you mean --model.backbone_lr or --model.head_lr?"),
        (["demo.yaml"], "Did you mean -c demo.yaml?"),
        (["demo"], "Did you mean -c demo?"),
        (["--data.regime", "brian"], "Did you mean data.regime: brain?"),
        (["--model.anchor.kind=l2_spp"], "Did you mean model.anchor.kind: l2_sp?"),
        (["--run.wandb", "ofline"], "Did you mean run.wandb: offline?"),
        (["--trainer.precision", "bf16-mxed"], "Did you mean trainer.precision: bf16-mixed?"),
        (["--data.source", "DemoSorce"], "Did you mean brainlit.demo.DemoSource?"),
        (["--data.source.sed", "3"], "Did you mean seed?"),
        (["--trainer.callbacks.probe.alphas", "[1]"], "Did you mean --probe.alphas?"),
        (["--probe.alpha", "[1]"], "Did you mean --probe.alphas?"),
        (["--probe.solver.precision", "flaot64"], "Did you mean probe.solver.precision: float64?"),
    ],
)
def test_a_command_line_of_fit_is_refused_with_the_hint(arguments: list[str], hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        parsed("fit", [*CONFIGS, *arguments])
    assert str(refused.value).endswith(hint)


def test_keys_and_values_of_a_file_have_hints_too(tmp_path: Path) -> None:
    for content, hint in (
        ("model: {learning_rate: 1}", "Did you mean model.backbone_lr or model.head_lr?"),
        ("trainer: {epochs: 3}", "Did you mean trainer.max_epochs?"),
        ("data: {regime: permutd}", "Did you mean data.regime: permuted?"),
        ("modelx: {layer: 1}", "Did you mean model.layer?"),
    ):
        (tmp_path / "mine.yaml").write_text(content)
        with pytest.raises(UsageError) as refused:
            parsed("fit", [*CONFIGS, "-c", str(tmp_path / "mine.yaml")])
        assert hint in str(refused.value)


def test_verbs_with_a_parser_of_their_own_ask_back(capsys: pytest.CaptureFixture[str]) -> None:
    for parser, typed, hint in (
        (options_parser(), ["RUN", "--taks", "words"], "Did you mean --task?"),
        (options_parser(), ["RUN", "--models", "tund"], "Did you mean --models tuned?"),
        (data_parser("download"), ["--on-difference", "kep"], "Did you mean --on-difference keep?"),
    ):
        with pytest.raises(UsageError) as refused:
            parser.parse_args(typed)
        assert hint in str(refused.value)
        assert str(refused.value).endswith(f"{parser.prog} --help says which options there are.")
    assert capsys.readouterr().err == "", "no list of all options"


def test_what_a_data_verb_does_not_know_may_be_its_own_option() -> None:
    for action in EXAMPLES:
        own = data_parser(action)
        assert isinstance(own, OwnParser)
        for key in set(own.known_keys()) - {"help"}:
            with pytest.raises(UsageError) as refused:
                parsed("fit", [*CONFIGS, f"--{key}x"], own.known_keys())
            assert str(refused.value).endswith(f"Did you mean --{key}?")


def test_hints_are_said_once() -> None:
    assert list(hints_for("unrecognized arguments: --epoch 1", ["trainer.max_epochs"])) == [
        "Did you mean --trainer.max_epochs?"
    ]


# --- Options that messages name ---

SRC = Path(__file__).parents[2] / "src" / "brainlit"
DOTTED = re.compile(r"(?<![\w./-])(?:--)?((?:probe|data|model|trainer|run)\.[a-z]\w*(?:\.[a-z]\w*)*)(?![\w(/])")
BARE = re.compile(r"(?<![\w-])--([a-z][\w-]*)(?![\w.-])")
NO_OPTIONS = {"run.json", "model.safetensors", "trainer.datamodule.target_sizes", "trainer.fit"} | {
    "data.init_args",
    "data.init_args.roles",
}
OF_OTHERS = {"local-dir", "revision", "force-reinstall", "no-sign-request", "word_timestamps", "mem"} | {
    "porcelain",
    "untracked-files",
    *("error-unmatch", "include-online"),
    *("me", "noheader", "array", "format", "states", "allocations", "delimiter", "parsable2", "cpus-per-task"),
}
"""Of hf, pip, aws, whisper, SLURM, git and wandb."""
EVERYWHERE = {"debug", "version", "help", "help-all", "trust", "print_config", "fix", "dry-run"}


def _messages() -> Iterator[tuple[str, str]]:
    """File and text of every string that is no docstring and has more than one word."""
    for path in sorted(SRC.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in bare else None
            if isinstance(text, str) and (" " in text.strip() or text.startswith("--")):
                yield path.relative_to(SRC).as_posix(), text


def test_every_option_that_a_message_or_warning_names_can_be_typed(keys_of: dict[str, list[str]]) -> None:
    """Errors, warnings and reports name options of fit, which probe takes too, or of the verb that says it."""
    known = {*keys_of["fit"], *keys_of["probe"]}
    groups = {key[:dot] for key in known for dot in range(len(key)) if key[dot] == "."}
    own = {key for keys in keys_of.values() for key in keys} | OF_OTHERS | EVERYWHERE
    own |= {key for text in _option_names() for key in [text[2:]]}
    n_found = 0
    for where, text in _messages():
        for name in DOTTED.findall(text):
            n_found += 1
            is_of_a_mapping = name.rpartition(".")[0] == "data.roles"
            is_begun = name.endswith("_") and any(key.startswith(name) for key in known)
            is_right = is_of_a_mapping or is_begun or name.endswith(".help") or name in known | groups | NO_OPTIONS
            assert is_right, (where, name, text)
        for name in BARE.findall(text):
            assert name in own, (where, name, text)
    assert n_found > 60


def _option_names() -> Iterator[str]:
    """What add_argument gets, in all verbs."""
    for path in (SRC / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = node.args[0].value
                if isinstance(name, str) and name.startswith("--"):
                    yield name
    yield from ("--bootstrap_trs", "--permutation_trs", "--n_bootstraps", "--n_permutations")
