"""The site of the docs: built without a warning, every page in it, no broken link; and the code of its pages runs."""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import unquote, urldefrag

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from brainlit.cli import TRAINING, VERBS
from brainlit.cli.config_names import expanded
from brainlit.cli.training import parsed
from brainlit.encoding.config import ProbeConfig, SolverConfig
from brainlit.stories.manifest.schema import ResponseSpec
from brainlit.tuning import BrainTuning
from brainlit.tuning.heads import HEADS, HeadConfig, build_head
from brainlit.tuning.losses import LOSSES, LossConfig, TargetLoss
from tests.callbacks.toy_module import ToyModule, toy_data
from tests.toy import DELAY_TRS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ADDRESS = "https://code.example/lab/brainlit"


def blocks(page: str, language: str = "python") -> list[str]:
    """The blocks of code of a page."""
    text = (DOCS / page).read_text("utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in fenced if name == language]


def commands(page: str) -> list[str]:
    """Lines of the blocks without a language, continued lines put together."""
    return [line for block in blocks(page, "") for line in block.replace("\\\n", " ").splitlines()]


# --- the site ---


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/hooks.py as a module."""
    pytest.importorskip("mkdocs", reason="make installs it, with the extra docs")
    pytest.importorskip("griffe", reason="make installs it, with the extra docs")
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(hooks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site without its API, whose pages take five times as long as all others: `make docs` builds them too."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("DOCS_API", "false"), ("NO_MKDOCS_2_WARNING", "1"), ("SITE_URL", "https://site.example")):
            patch.setenv(name, value)
        logging.getLogger("mkdocs").addHandler(handler)
        try:
            build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
        except Abort as error:
            pytest.fail(f"{error}\n" + "\n".join(said))
        finally:
            logging.getLogger("mkdocs").removeHandler(handler)
    return folder


def in_navigation(node: Any) -> Iterator[str]:
    """The pages that a part of the navigation names."""
    if isinstance(node, str):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from in_navigation(child)


def navigation() -> list[Any]:
    """What mkdocs.yml says, whose tags YAML alone does not know."""
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8").replace("!ENV", ""))["nav"]


def test_every_page_is_in_the_navigation_once(hooks: ModuleType, site: Path) -> None:
    named = list(in_navigation(navigation()))
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(named) == sorted([*pages, *hooks.brought_in().values(), *hooks.api_pages()])
    for page in named:
        folder = page.removesuffix("README.md").removesuffix("index.md").removesuffix(".md")
        assert (site / folder / "index.html").is_file(), page


def test_no_link_or_picture_of_the_site_is_broken(site: Path) -> None:
    pages = {path: path.read_text("utf-8") for path in site.rglob("*.html") if path.name != "404.html"}
    ids = {path: set(re.findall(r'\bid="?([^"\s>]+)', text)) for path, text in pages.items()}
    n_links, n_pictures = 0, 0
    for path, text in pages.items():
        for kind, link in re.findall(r'\b(href|src)="([^"]*)"', text):
            target, anchor = urldefrag(unquote(link))
            if "://" in link or link.startswith(("data:", "mailto:")):
                continue
            wanted = (path.parent / target).resolve() if target else path
            wanted = wanted / "index.html" if wanted.is_dir() else wanted
            assert wanted.is_file(), f"{path.relative_to(site)} links to {link}"
            assert not anchor or anchor in ids.get(wanted, ()), f"{path.relative_to(site)} links to {link}"
            n_links, n_pictures = n_links + 1, n_pictures + (kind == "src" and wanted.suffix in (".png", ".svg"))
    assert n_links > 1000
    assert n_pictures >= len(list((DOCS / "images").glob("*.png")))


def test_nothing_of_a_list_or_table_is_left_as_text(site: Path) -> None:
    for path in site.rglob("index.html"):
        article = path.read_text("utf-8").partition("<article")[2].partition("</article>")[0]
        text = re.sub(r"<pre.*?</pre>|<code>.*?</code>", "", article, flags=re.DOTALL)
        assert re.findall(r"^\s*(?:[-*] |\| |\d+\. ).*", text, re.MULTILINE) == [], path.relative_to(site)


def turned(hooks: ModuleType, page: str, text: str, address: str | None) -> str:
    """A text as it comes out on a page of the site."""
    known = {"probe.md", "images/house.svg", *hooks.brought_in().values()}
    files = SimpleNamespace(get_file_from_path=lambda uri: uri in known)
    return hooks.on_page_markdown(
        text,
        page=SimpleNamespace(file=SimpleNamespace(src_uri=page)),
        config=SimpleNamespace(repo_url=address),
        files=files,
    )


@pytest.mark.parametrize(
    ("page", "link", "comes_out"),
    [
        ("index.md", "[the probe](docs/probe.md#the-numbers)", "[the probe](probe.md#the-numbers)"),
        ("index.md", "![house](docs/images/house.svg)", "![house](images/house.svg)"),
        ("probe.md", "[alice](../data/alice.md)", "[alice](data/alice.md)"),
        ("data/alice.md", "[probe](../docs/probe.md)", "[probe](../probe.md)"),
        ("data/alice.md", "[home](../README.md)", "[home](../index.md)"),
        (
            "experiments/README.md",
            "[base](brain_tune.yaml)",
            f"[base]({ADDRESS}/blob/main/experiments/brain_tune.yaml)",
        ),
        ("probe.md", "[tests](../tests)", f"[tests]({ADDRESS}/tree/main/tests)"),
        ("probe.md", "[how](images/house.py)", f"[how]({ADDRESS}/blob/main/docs/images/house.py)"),
        (
            "probe.md",
            "[out](https://example.org/a.md), [here](#below)",
            "[out](https://example.org/a.md), [here](#below)",
        ),
        ("probe.md", "[gone](../nowhere.md)", "[gone](../nowhere.md)"),
        ("index.md", "```\n[code](docs/probe.md)\n```", "```\n[code](docs/probe.md)\n```"),
    ],
)
def test_links_are_turned_to_pages_or_to_the_repository(
    hooks: ModuleType, page: str, link: str, comes_out: str
) -> None:
    assert turned(hooks, page, link, ADDRESS) == comes_out


def test_without_an_address_a_link_to_a_source_file_is_its_text(hooks: ModuleType) -> None:
    assert turned(hooks, "experiments/README.md", "see [base](brain_tune.yaml).", None) == "see base."


def test_the_address_is_that_of_the_project_or_of_who_publishes(
    hooks: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert hooks.repository() is None
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://code.example")
    monkeypatch.setenv("GITHUB_REPOSITORY", "lab/brainlit")
    assert hooks.repository() == ADDRESS
    (tmp_path / "pyproject.toml").write_text("[project]\nurls = {Repository = 'https://elsewhere.example/brainlit/'}\n")
    assert hooks.repository() == "https://elsewhere.example/brainlit"


def test_every_public_docstring_is_understood_by_what_makes_the_pages_of_the_api(
    hooks: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    import griffe

    package = griffe.load(
        "brainlit",
        search_paths=[str(ROOT / "src")],
        docstring_parser="numpy",
        extensions=griffe.load_extensions(hooks.Examples),
    )
    seen = set()

    def read(one: Any) -> None:
        if one.path in seen or one.is_module or one.docstring is None:
            return
        seen.add(one.path)
        _ = one.docstring.parsed
        for member in one.members.values() if one.is_class else ():
            if member.is_public and not member.is_alias:
                read(member)

    for page in hooks.api_pages():
        module = package[page.removeprefix("api/").removesuffix(".md")]
        for name in module.exports:
            member = module.members[getattr(name, "name", name)]
            read(member.final_target if member.is_alias else member)
    assert len(seen) > 400
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    "text", sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "data").glob("*.md")]), ids=lambda path: path.name
)
def test_lists_look_the_same_on_the_code_host_and_in_the_site(text: Path) -> None:
    """The site takes no list that comes straight after a line of text, and what belongs to an item four blanks deep."""
    outside = re.sub(r"^```.*?^```$", "", text.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^(?!#|[ ]|[-*] |\d+\. )\S.*\n(?:[-*]|\d+\.) .*", outside, re.MULTILINE) == []
    assert re.findall(r"^[ ]{1,3}(?:[-*]|\d+\.) .*", outside, re.MULTILINE) == []
    assert re.findall(r"\n\n[ ]{1,3}\S.*", outside) == []


def test_the_public_workflow_builds_what_make_docs_builds() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "docs.yml").read_text("utf-8"))
    build, deploy = workflow["jobs"]["build"]["steps"], workflow["jobs"]["deploy"]["steps"]
    assert [step["run"] for step in build if "run" in step] == ["make docs"]
    assert build[-1]["with"]["path"] == "site"
    assert deploy[-1]["uses"].startswith("actions/deploy-pages@")
    assert "site/" in (ROOT / ".gitignore").read_text().split()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {re.split(r"[>=]", one)[0] for one in extras["docs"]} == {"mkdocs", "mkdocs-material", "mkdocstrings-python"}
    assert ",docs," in (ROOT / "Makefile").read_text()


# --- the page of differences ---


def preset(name: str) -> Any:
    """The values of a file of experiments/, by dotted names."""
    return OmegaConf.load(ROOT / "experiments" / f"{name}.yaml")


def differences() -> dict[tuple[int, str], list[str]]:
    """(number of the table, choice) -> its cells: text, code, ours, where."""
    tables = (DOCS / "differences.md").read_text("utf-8").split("\n## ")[1:]
    rows = {}
    for number, table in enumerate(tables):
        for line in re.findall(r"^\| (.*) \|$", table, re.MULTILINE)[2:]:
            choice, *cells = line.split(" | ")
            rows[number, choice] = cells
    return rows


TEXT, CODE, OURS = 0, 1, 2
ONE, SEVERAL, WAVLM = 0, 1, 2
SAID = [
    (ONE, "voxels", TEXT, "paper/paper_text", ["data.min_ceiling"]),
    (ONE, "rate of the backbone", TEXT, "paper/paper_text", ["model.backbone_lr", "model.warmup_fraction"]),
    (ONE, "rate of the backbone", CODE, "paper/paper_code", ["model.backbone_lr", "trainer.max_epochs"]),
    (ONE, "rate of the head", TEXT, "paper/paper_text", ["model.head_lr"]),
    (ONE, "rate of the head", CODE, "paper/paper_code", ["model.head_lr"]),
    (ONE, "loss", OURS, "paper/paper_code", ["model.loss.name"]),
    (ONE, "optimiser", CODE, "paper/paper_code", ["model.optimizer"]),
    (ONE, "batch", CODE, "paper/paper_code", ["data.batch_size"]),
    (ONE, "end", CODE, "paper/paper_code", ["trainer.max_epochs"]),
    (ONE, "end", OURS, "brain_tune", ["trainer.max_epochs"]),
    (ONE, "window", OURS, "brain_tune", ["data.window.n_trs", "data.window.context_s"]),
    (SEVERAL, "LoRA", TEXT, "paper/multi_brain", ["model.lora.rank", "model.lora.alpha", "model.lora.dropout"]),
    (
        SEVERAL,
        "optimiser",
        TEXT,
        "paper/multi_brain",
        ["model.optimizer", "model.backbone_lr", "model.warmup_fraction"],
    ),
    (SEVERAL, "batch, epochs", TEXT, "paper/multi_brain", ["data.batch_size", "trainer.max_epochs"]),
    (SEVERAL, "steps", OURS, "paper/multi_brain", ["data.subject_steps"]),
    (WAVLM, "model", CODE, "paper/brain_wavlm", ["model.lora.rank", "model.lora.alpha", "model.lora.dropout"]),
    (WAVLM, "layer", OURS, "paper/brain_wavlm", ["model.layer"]),
    (WAVLM, "normalisation", CODE, "paper/brain_wavlm", ["data.window.n_trs"]),
    (WAVLM, "head", CODE, "paper/brain_wavlm", ["model.head.rank"]),
    (WAVLM, "head", OURS, "paper/brain_wavlm", ["model.head.kind"]),
    (WAVLM, "loss", OURS, "paper/brain_wavlm", ["model.loss.name"]),
    (WAVLM, "optimiser", CODE, "paper/brain_wavlm", ["model.optimizer", "model.backbone_lr", "trainer.max_epochs"]),
]
IN_WORDS = {
    "mse": "mean squared error",
    "spatial_correlation": "1 minus the spatial correlation",
    "adam": "Adam",
    "adamw": "AdamW",
}


@pytest.mark.parametrize(("table", "choice", "column", "file", "keys"), SAID, ids=lambda part: str(part))
def test_what_the_differences_say_is_what_the_presets_set(
    table: int, choice: str, column: int, file: str, keys: list[str]
) -> None:
    cell, values = differences()[table, choice][column], preset(file)
    for key in keys:
        value = OmegaConf.select(values, key, throw_on_missing=True)
        if isinstance(value, str):
            said = IN_WORDS.get(value, value)
        elif key.endswith("_lr"):
            said = f"{value:.0e}".replace("e-0", "e-")
        else:
            said = f"{100 * value:g} %" if key.endswith("warmup_fraction") else f"{value:g}"
        assert re.search(rf"(?<![\d.]){re.escape(said)}(?![\d.]\d|\w)", cell), (key, said, cell)


def test_what_the_differences_say_of_the_defaults() -> None:
    rows, several, wavlm = differences(), preset("paper/multi_brain"), preset("paper/brain_wavlm")
    settings = inspect.signature(BrainTuning).parameters
    assert rows[ONE, "optimiser"][OURS] == f"AdamW, weight decay {settings['weight_decay'].default}"
    assert settings["optimizer"].default == "adamw"
    assert rows[ONE, "mode of the backbone"][OURS] == settings["backbone_mode"].default
    assert f"dropout {HeadConfig().dropout}" in rows[ONE, "head"][OURS]
    assert (LossConfig().name, HeadConfig().bin_s) == ("mse", 0.5)
    assert preset("paper/paper_code").model.schedule == "published_2410"
    assert rows[SEVERAL, "participants"][TEXT].startswith(f"{len(several.data.subjects)} tune, ")
    assert f"{len(several.data.held_out_subjects)} are held out" in rows[SEVERAL, "participants"][TEXT]
    assert wavlm.model.head.delays_trs == [1, 2, 3, 4]
    assert len(rows) > 35
    for name in ("paper_text", "paper_code", "multi_brain", "brain_wavlm"):
        assert f"`PRESET={name}`" in (DOCS / "differences.md").read_text("utf-8")


# --- the code of the pages ---


NUMBER = re.compile(r"-?\d+\.\d+")


def test_the_tour_runs_and_its_notebook_is_that_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))
    made = runpy.run_path(str(DOCS / "notebook.py"))["executed"]((DOCS / "tour.md").read_text("utf-8"))
    said = ["".join(line for output in cell.pop("outputs", []) for line in output["text"]) for cell in made]
    voxels = {name: float(r) for name, r in re.findall(r"'(\w+)': (-?[\d.]+)", "".join(said))}
    assert voxels["auditory"] > 0.2 > 0.1 > voxels["null"]
    kept = json.loads((DOCS / "tour.ipynb").read_text("utf-8"))["cells"]
    said_then = ["".join(line for output in cell.pop("outputs", []) for line in output["text"]) for cell in kept]
    assert kept == made, "python docs/notebook.py"
    for now, then in zip(said, said_then, strict=True):
        assert NUMBER.sub("", now) == NUMBER.sub("", then), "python docs/notebook.py"
        numbers, numbers_then = ([float(number) for number in NUMBER.findall(text)] for text in (now, then))
        assert numbers == pytest.approx(numbers_then, abs=0.05)


def run_block(page: str, name: str) -> dict[str, Any]:
    """What the one Python block of a page defines, as if it were imported by this name."""
    (code,) = blocks(page)
    assert len(code.splitlines()) <= 40
    names: dict[str, Any] = {"__name__": name}
    exec(compile(code, page, "exec"), names)
    return names


def understood(page: str) -> Any:
    """The configuration that the fit of a page asks for."""
    (command,) = (line for line in commands(page) if " fit -c" in line)
    options = shlex.split(command[command.index(" fit ") + 5 :])
    return parsed("fit", expanded(options, with_base=True)).config


def test_what_people_from_other_tools_are_told_exists() -> None:
    """Options by their dotted names, and the one snippet, on arrays with a known answer."""
    text = (DOCS / "coming_from.md").read_text("utf-8") + (DOCS / "reading.md").read_text("utf-8")
    base = (part for name in ("brain_tune", "data/demo") for part in ("-c", str(ROOT / "experiments" / f"{name}.yaml")))
    known = set(parsed("fit", list(base)).parser.known_keys())
    settings = {f"probe.{name}" for name in ProbeConfig.__dataclass_fields__}
    settings |= {f"probe.solver.{name}" for name in SolverConfig.__dataclass_fields__} | {"probe.layers"}
    settings |= {f"responses.{name}" for name in ResponseSpec.__dataclass_fields__}
    named = re.findall(r"`-{0,2}((?:probe|data|responses)\.[a-z_.]+[a-z_])", text)
    assert len(named) > 20
    assert set(named) <= known | settings
    rng = np.random.default_rng(0)
    bands = {name: rng.standard_normal((200, 3)) for name in ("X", "L", "X_new", "L_new")}
    weights = rng.standard_normal((3, 5))
    responses = {f"Y{new}": np.roll(bands[f"X{new}"] @ weights, 2, axis=0) for new in ("", "_new")}
    names: dict[str, Any] = {**bands, **responses, "groups": np.arange(200) // 50, "groups_new": np.arange(200) // 100}
    (code,) = blocks("coming_from.md")
    exec(compile(code, "coming_from.md", "exec"), names)
    assert names["r"].min() > 0.9
    assert names["model"].solver_ == "himalaya"


VERB = re.compile(r"^(?:srun |PYTHONPATH=\. )?(?:brainlit|python my_fit\.py) (\w+)")
NEW_PAGES = (
    "tour.md",
    "reading.md",
    "cluster.md",
    "my_loss.md",
    "my_head.md",
    "my_probe.md",
    "coming_from.md",
    "gallery.md",
    "wandb.md",
)


def test_every_command_of_the_pages_is_a_verb() -> None:
    lines = [line.strip() for page in NEW_PAGES for line in commands(page)]
    lines += [code for page in NEW_PAGES for code in re.findall(r"`([^`\n]+)`", (DOCS / page).read_text("utf-8"))]
    verbs = [match[1] for line in lines if (match := VERB.match(line))]
    assert len(verbs) > 15
    assert set(verbs) <= {*TRAINING, *VERBS}


@pytest.fixture
def tables_of_names() -> Iterator[None]:
    """Losses and heads are tables; what a page adds to them is taken out again."""
    before = dict(LOSSES), dict(HEADS)
    yield
    for table, own in zip((LOSSES, HEADS), before, strict=True):
        for name in table.keys() - own.keys():
            del table[name]


@pytest.mark.usefixtures("tables_of_names")
def test_a_loss_of_ones_own() -> None:
    run_block("my_loss.md", "my_fit")
    loss = TargetLoss(LossConfig(name=understood("my_loss.md").model.loss.name))
    p, y = torch.randn(2, 5, 3, requires_grad=True), torch.randn(2, 5, 3)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    value = loss({"S1": p}, {"S1": torch.where(mask[:, :, None], y, torch.nan)}, {"S1": mask})
    value.backward()
    assert value.item() == pytest.approx((p - y)[mask].cosh().log().mean().item(), rel=1e-5)
    assert p.grad is not None
    torch.testing.assert_close(p.grad[mask], (p - y)[mask].tanh().detach() / (8 * 3), atol=1e-6, rtol=1e-5)
    assert not p.grad[~mask].any()


@pytest.mark.usefixtures("tables_of_names")
def test_a_head_of_ones_own() -> None:
    run_block("my_head.md", "my_fit")
    asked = understood("my_head.md").model.head
    sizes = {"S1": 3, "S2": 5}
    pooled, heard = torch.randn(2, 12, 16), torch.ones(2, 12, dtype=torch.bool)
    for settings in ({}, {"delays": "fir"}, {"delays": "fixed", "delays_trs": [1]}):
        config = HeadConfig(kind=asked.kind, rank=asked.rank, dropout=0.0, **settings)
        columns = {subject: np.arange(size) for subject, size in sizes.items()}  # differ: no head of one map for all
        head, again = (build_head(config, 16, sizes, "tr", 0, columns) for _ in range(2))
        predicted = head(pooled, heard, 8)
        assert {name: tuple(values.shape) for name, values in predicted.items()} == {"S1": (2, 8, 3), "S2": (2, 8, 5)}
        assert all(torch.equal(values, again(pooled, heard, 8)[name]) for name, values in predicted.items())
        torch.cat([values.square().flatten() for values in predicted.values()]).sum().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())
        assert not torch.allclose(head(2 * pooled, heard, 8)["S1"], 2 * predicted["S1"], atol=1e-3), "it bends"


def test_a_probe_of_ones_own(toy_store_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A layer that says what drives the responses resembles them at their delay, and less at another one."""
    monkeypatch.setitem(sys.modules, "my_probe", ModuleType("my_probe"))
    vars(sys.modules["my_probe"]).update(run_block("my_probe.md", "my_probe"))
    (settings,) = blocks("my_probe.md", "yaml")
    (asked,) = yaml.safe_load(settings)["trainer"]["callbacks+"]
    probe_class = getattr(sys.modules["my_probe"], asked["class_path"].removeprefix("my_probe."))
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(settings)
    callbacks = understood("my_probe.md").trainer.callbacks
    assert [callback.class_path for callback in callbacks][-1] == asked["class_path"]
    data = toy_data(toy_store_path)
    data.prepare_data()
    data.setup("fit")
    module, logged = ToyModule(), {}
    module.layer = 1
    monkeypatch.setattr(module, "log", lambda name, value: logged.setdefault(name, []).append(value))
    for lag_trs in (DELAY_TRS, 0):
        probe = probe_class(block_trs=2, lag_trs=lag_trs)
        probe.on_validation_epoch_end(SimpleNamespace(datamodule=data), module)
    assert list(logged) == ["resemblance/sub-A", "resemblance/sub-B"]
    assert probe_class(**asked["init_args"]).block_trs == asked["init_args"]["block_trs"]
    assert all(np.isfinite(r).all() for r in logged.values())
    assert all(right > other for right, other in logged.values())
