"""Names that YAML takes for numbers and truth values."""

from __future__ import annotations

import pytest
import yaml
from jsonargparse._loaders_dumpers import yaml_load
from omegaconf import OmegaConf

from brainlit.cli.yaml_names import dump_yaml, quotes_hints


def test_the_right_form_of_a_name_is_said_for_whatever_was_typed() -> None:
    message = "Parser key \"data.roles\":\n  - Expected a <class 'str'>. Got value: 80\n  [dict[str, list[str]]]"
    for typed in (["--data.roles.tune", "[1:20, x]"], ["-c", "a", "--data.roles.tune=[1:20, x]"]):
        (hint,) = quotes_hints(message, typed)
        assert hint.endswith("Put it in quotes: --data.roles.tune \"['1:20', x]\"")
    assert list(quotes_hints(message.replace("80", "{'a': 1}"), [])) == []


@pytest.mark.parametrize("name", ["1e3", "12e03", "1e+3", "010", "1:20", "no", ".5", "1.5", "~", "2024-01-02", "a"])
def test_names_are_written_so_that_every_reader_gives_them_back(name: str) -> None:
    written = dump_yaml({"names": [name], name: 1e-5})
    for read in (yaml.safe_load, yaml_load, lambda text: OmegaConf.to_container(OmegaConf.create(text))):
        assert read(written) == {"names": [name], name: 1e-5}
