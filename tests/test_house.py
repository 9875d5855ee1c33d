"""The house keeps its rules: layers, no circles, sizes of modules, tests beside what they test, paths in the texts."""

from __future__ import annotations

import ast
import re
import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "brainlit"
TESTS = ROOT / "tests"
MOST_LINES, FEW_LINES, MOST_SHORT = 500, 60, 8
BESIDE_MODULES = {
    "test_house.py": "the rules of the house",
    "test_project.py": "the files around the code",
    "test_docs_site.py": "the site of the docs, docs/hooks.py, and the code of its pages",
    "test_transcript.py": "docs/transcript.py, and what it has written",
    "test_faults.py": "a small part of benchmarks/faults.py",
    "results/test_browser.py": "reports as a browser shows them",
    "results/test_damage.py": "flipped bits of all files of a run",
    "store/test_damage.py": "flipped bits of all files of a store",
    "backbones/test_contract.py": "what the families that are no kin of wav2vec 2.0 must do",
    "backbones/test_families.py": "what every family must do",
    "callbacks/test_ddp.py": "several processes, each with all callbacks",
    "cli/test_main.py": "the command itself, in cli/__init__.py",
    "cli/test_experiments.py": "the config files",
    "cli/test_bench.py": "the suite of benchmarks, benchmarks/suite.py, and its page",
    "cli/test_reference.py": "the commands and tables of benchmarks/reference.py, and their page",
    "cli/test_group.py": "a group as a subject, from the config file to the report",
    "encoding/test_own_bands.py": "probes of any number of bands, against himalaya and a slow partition",
    "downstream/data/test_all.py": "what every published data set must do",
    "encoding/test_repeats.py": "numbers of averaged rows, through several modules",
    "store/test_repeats.py": "what a store makes of averaged rows, up to the shares",
    "encoding/test_null_rates.py": "rates of false alarms of several tests",
    "encoding/test_planted.py": "known answers, through several modules",
    "encoding/test_preparation.py": "what comes before a fit, in several modules",
    "encoding/test_solvers.py": "all solvers beside each other",
    "encoding/test_wide_shares.py": "the small form of a benchmark of shares, and its truth",
    "encoding/test_leaks.py": "no test row is seen by a fit, through several modules",
    "features/test_own_rate.py": "every space at its own rate",
    "store/test_own_rate.py": "feature spaces at their own rate, written, read, described and checked",
    "stories/test_alice.py": "the example of real recordings",
    "stories/test_fuzz.py": "damaged files of every kind",
    "tuning/test_families_train.py": "every family takes a step",
    "tuning/test_heads_linear.py": "heads.py is tested in two files, one for the linear heads",
    "tuning/test_regimes.py": "every way to train",
    "tuning/test_several_subjects.py": "one pass for several subjects, through several modules",
    "tuning/objectives/test_masking.py": "masks, as all self-supervised objectives use them",
}
"""Test files that mirror no module of src, with the reason; those of end_to_end/ run everything."""
TEXTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "experiments/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "data").glob("*.md")),
]


def module_name(path: Path) -> str:
    parts = ["brainlit", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(name: str, path: Path) -> set[str]:
    """Modules of the package that a module imports anywhere: also inside functions and under TYPE_CHECKING."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from package import name` imports a module where there is one of this name, else what the package holds
            found |= {own if (own := f"{base}.{alias.name}") in MODULES else base for alias in node.names}
    return (found & MODULES.keys()) - {name}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that can all be reached from each other (Tarjan's strongly connected components above one)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:  # the first of its group to be visited: the group is the stack above it
            at = stack.index(name)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"d", "a"}, "d": {"c"}}) == [["a", "b", "c", "d"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: imported(name, path) for name, path in MODULES.items()}
    assert len(graph["brainlit.cli.training"]) > 5
    assert "brainlit.cli.training" in graph["brainlit.cli"], "inside a function"
    assert circles(graph) == []


def test_the_import_contract_names_every_room() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {name.strip() for layer in contracts[0]["layers"] for name in layer.split("|")}
    assert layers == {f"brainlit.{path.stem}" for path in PACKAGE.iterdir() if not path.name.startswith(("_", "py."))}


def test_the_picture_of_the_house_is_that_of_the_contract() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "images" / "house.py"))["picture"]()
    assert (ROOT / "docs" / "images" / "house.svg").read_text(encoding="utf-8") == drawn, "python docs/images/house.py"


def test_the_table_of_rooms_is_that_of_the_house() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w./]+)` \|", text.split("## Contracts")[0], re.MULTILINE))
    rooms = {path.name + ("/" if path.is_dir() else "") for path in PACKAGE.iterdir()}
    assert named == {room for room in rooms if not room.startswith(("_", "py."))}


def test_a_module_is_one_idea_and_a_whole_one() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}
    short = [name for name, n in lines.items() if n < FEW_LINES and MODULES[name].name != "__init__.py"]
    assert len(short) <= MOST_SHORT, short


def test_every_test_file_mirrors_a_module_or_says_why_not() -> None:
    files = {str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py")}
    assert BESIDE_MODULES.keys() <= files
    for name in sorted(files - BESIDE_MODULES.keys()):
        path = Path(name)
        module = PACKAGE / path.parent / path.stem.removeprefix("test_")
        mirrors = module.with_suffix(".py").is_file() or module.is_dir()
        assert mirrors != name.startswith("end_to_end/"), f"tests/{name}: what does it test?"
    assert not {name for name in BESIDE_MODULES if name.startswith("end_to_end/")}


def named_paths(text: str) -> Iterator[str]:
    """Paths of Python files, and dotted names, of brainlit's own that a text names."""
    ours = {"src", "tests", *(path.name for path in PACKAGE.iterdir() if path.is_dir())}
    found = re.findall(r"(?<![\w/.-])(?:\w+/)+\w+\.py\b", text)
    yield from (path for path in found if path.split("/")[0] in ours)
    yield from re.findall(r"\bbrainlit(?:\.\w+)+", text)


def names_of(path: Path) -> set[str]:
    """What a module defines or imports at its top."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def exists(named: str) -> bool:
    if named.endswith(".py"):
        path = Path(named)
        return any((root / path).is_file() for root in (ROOT, PACKAGE, ROOT / "src"))
    name, _, rest = named, "", ""
    while name not in MODULES:  # what is left behind the module is a name in it
        name, _, last = name.rpartition(".")
        rest = f"{last}.{rest}".rstrip(".")
    return not rest or rest.split(".")[0] in names_of(MODULES[name])


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_that_a_text_names_exists(text: Path) -> None:
    assert [named for named in named_paths(text.read_text(encoding="utf-8")) if not exists(named)] == []


def test_paths_in_texts_are_looked_at() -> None:
    text = "see `cli/training.py`, src/brainlit/hints.py, `brainlit.cli.main` and brainlit.clo.training"
    assert [exists(named) for named in named_paths(text)] == [True, True, True, False]


def test_the_tests_listed_as_slow_exist() -> None:
    listed = (ROOT / "tests" / "slow.txt").read_text(encoding="utf-8").split()
    parts = [name.split("::") for name in listed]
    gone = [name for name, (file, function) in zip(listed, parts, strict=True) if function not in names_of(ROOT / file)]
    assert listed
    assert gone == []
