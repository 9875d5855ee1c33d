"""A manifest is checked key by key, and what is wrong is said with file, place, value and cure."""

from __future__ import annotations

import copy
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from brainlit.stories.manifest.reader import read_manifest
from brainlit.stories.manifest.schema import Manifest, ManifestError, ResponseSpec, StorySpec, TierSpec


def _write(folder: Path, manifest: dict[str, Any]) -> Path:
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))
    return path


def _changed(manifest: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(manifest)
    *parents, key = place.split(".")
    target = changed
    for parent in parents:
        target = target[parent]
    target[key] = value
    return changed


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("subject", ["anna"], r"unknown key 'subject'\. Did you mean 'subjects'\?"),
        ("each_story.onset", 2.0, r"each_story: unknown key 'onset'\. Did you mean 'onset_s'"),
        ("responses.collumns", ["a"], r"responses: unknown key 'collumns'\. Did you mean 'columns'\?"),
        ("roles.train", ["frog"], r"roles: unknown key 'train'\. .*Known: choose, fit, score, tune"),
        ("each_story.tr_s", "two", r"tr_s is 'two'; need a number"),
        ("each_story.tr_s", None, r"stories\.frog: 'tr_s' is missing"),
        ("each_story.onset_s", None, r"give onset_s .* or tr_starts"),
        ("each_story.words", {"file": "a.TextGrid", "teir": "word"}, r"unknown key 'teir'\. Did you mean 'tier'\?"),
        ("subjects.ben", ["frogg"], r"ben heard 'frogg': no such story\. Did you mean 'frog'\?"),
        ("responses.columns", "A1", r"columns is 'A1'; need a list"),
        ("name", None, r"'name' is missing"),
        ("word_vectors", "glove.txt", r"word_vectors is no key .* any more: .* data\.features\.vectors"),
        ("roles.tune", ["frogg[0:3]"], r"roles: tune is no story or stretch .*'frogg\[0:3\]'\. Did you mean 'frog'"),
        ("subjects.ben", None, r"subjects: 'ben' is missing"),
        ("subjects.ben", ["frog", "frog"], r"ben is \['frog', 'frog'\]; 'frog' stands there twice"),
        ("subjects", {}, r"subjects is \{\}; need at least one"),
        ("stories", [], r"stories is \[\]; need"),
        ("stories.frog", "x", r"stories\.frog is 'x'; need a mapping"),
        ("stories.frog", {"repeats": "all"}, r"stories\.frog: repeats is 'all'; name them"),
        ("stories.frog", {"repeats": ["1", "2"]}, r"repeats has no place in responses\.file .*put in \{repeat\}"),
        ("each_story.n_trs", 0, "n_trs is 0"),
        ("each_story.volumes_discarded", -1, "volumes_discarded is -1; need a whole number"),
        ("each_story.tr_s", float("inf"), r"tr_s is '\.inf'; need a number"),
        ("each_story.channel", "Left", r"channel is 'Left'; need left, right, a number \(0 is the first\) or mean"),
        ("each_story.channel", -1, r"channel is -1; need left, right, a number"),
        ("each_story.channel", [0, 1], r"channel is \[0, 1\]; need left, right, a number"),
        ("each_story.words", {"file": "a.tsv", "clock": "mri"}, "clock is 'mri'; need audio or scanner"),
        ("responses.file", "{sub}.npy", r"\{sub\} is no placeholder; known: \{subject\}, \{story\}"),
        ("responses.file", None, r"give file .* or fmriprep"),
        ("responses.fmriprep", "derivatives", r"give file .* or fmriprep .* and not both"),
        ("responses.task", "rest", r"task goes with fmriprep, which is not given"),
        ("responses.response_filter", "fmriprep", r"response_filter is 'fmriprep'; need a mapping such as"),
        ("responses.response_filter", {"polynomal": 2}, r"'polynomal' is no part of a response filter.*'polynomial'"),
        ("responses.response_filter", {"savgol": [120]}, r"savgol is \[120\]; give \[window_s, order\]\."),
        ("responses.slice_reference", 1.5, r"slice_reference is 1\.5; need a part, 0 to 1"),
        ("responses.zscore", False, "columns are always z-scored"),
        ("responses.low_pass_s", 200, r"low_pass_s \(200\.0\) is not below high_pass_s \(128\.0\)"),
        ("responses.confounds", ["csf"], "confounds needs {file: a table"),
        ("responses.region_files", {"fil": "a"}, r"region_files: unknown key 'fil'\. Did you mean 'file'"),
        ("responses.region_files", {"file": "a.npy", "groups": "mine"}, r"responses: region_files: .*'mine'"),
        ("root", "~nobody-of-that-name/x", "root is .*that home folder is not known"),
    ],
)
def test_a_wrong_manifest_is_refused_in_words(
    tmp_path: Path, manifest: dict[str, Any], place: str, value: Any, message: str
) -> None:
    path = _write(tmp_path, _changed(manifest, place, value))
    with pytest.raises(ManifestError, match=message) as refused:
        read_manifest(path)
    assert str(path) in str(refused.value)


ALIASES = "\n".join(["a0: &a0 [x]"] + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 9)])
DOUBLING = "\n".join(["k0: xxxxxxxxxx"] + [f"k{k}: ${{k{k - 1}}}${{k{k - 1}}}" for k in range(1, 27)])


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", r"manifest\.yaml is \['a', 'b'\]; need a mapping"),
        ("", r"manifest\.yaml is \{\}|'responses' is missing"),
        ("a: [1, 2\n", "is not a valid YAML mapping"),
        ("a: &x [*x]\n", r"manifest\.yaml: \*x refers to what it lies in"),
        ("root: ${oc.env:NO_SUCH_VARIABLE_HERE}\n", "Set the variable, or give a default"),
        ("[" * 100_000, r"manifest\.yaml, line 1: nested deeper than 100 levels"),
        (ALIASES, r"manifest\.yaml, line \d+: more than 200,000 values"),
        ("a: 1\n" * 300_000, r"manifest\.yaml has 1,500,000 bytes"),
        (DOUBLING, "more than 1,000,000 characters when its"),
        ("a: ${b}\nb: ${a}\n", "refers to itself"),
        ("a: ${${n}:HOME}\nn: oc.env\n", r"a has a \$\{\.\.\.\} within the name of another"),
        ("licence: ${oc.env:HOME}\n", "licence reads a variable of the environment, which only paths and names may"),
        ("root: ${oc.env:HOME}\nresponses: {columns: ['${root}']}\n", "responses.columns reads a variable"),
        ("stories: {'a': {onset_s: '${oc.env:HOME}'}}\n", r"stories\.a\.onset_s reads a variable"),
        ("root: ${oc.decode:x}\n", r"only \$\{oc\.env:NAME\} is known"),
        ("a: !!python/object:os.system {}\n", "is not a valid YAML mapping"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.yaml").write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path / "manifest.yaml")


def test_variables_of_the_environment_stand_in_paths(
    tmp_path: Path, manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENT_TO", "here")
    variable = "${oc.env:SENT_TO}"
    manifest["root"] = variable
    manifest["each_story"] |= {"audio": f"{variable}/{{story}}.wav", "words": {"file": f"{variable}.tsv"}}
    manifest["responses"] = {"fmriprep": f"{variable}/fp", "space": "fsaverage5", "mask": f"{variable}.nii"}
    read = read_manifest(_write(tmp_path, manifest))
    assert read.root == tmp_path / "here"
    assert (read.stories["frog"].audio, read.stories["frog"].words.file) == ("here/{story}.wav", "here.tsv")
    assert (read.responses.fmriprep, read.responses.mask) == ("here/fp", "here.nii")


def test_what_a_story_says_itself_goes_before_what_all_share(tmp_path: Path, manifest: dict[str, Any]) -> None:
    manifest["stories"]["bear"] = {"onset_s": -3.5, "words": {"file": "{story}.ctm", "tier": "b"}}
    read = read_manifest(_write(tmp_path, manifest))
    assert (read.stories["frog"].onset_s, read.stories["bear"].onset_s) == (2.0, -3.5)
    assert read.stories["frog"].words.file == "{story}.tsv"
    assert read.stories["bear"].words.tier == "b"


@pytest.mark.parametrize(
    ("all_say", "frog_says", "read"),
    [("left", None, "left"), ("right", "0", 0), (None, 3, 3), ("mean", "right", "right")],
)
def test_a_channel_is_that_of_the_story_or_of_all(
    tmp_path: Path, manifest: dict[str, Any], all_say: Any, frog_says: Any, read: Any
) -> None:
    manifest["each_story"]["channel"] = all_say
    manifest["stories"]["frog"] = {} if frog_says is None else {"channel": frog_says}
    stories = read_manifest(_write(tmp_path, manifest)).stories
    assert (stories["frog"].channel, stories["bear"].channel) == (read, all_say)


DOCUMENTATION = Path(__file__).parents[3] / "docs" / "your_data.md"


def test_the_examples_of_the_documentation_are_manifests(tmp_path: Path) -> None:
    examples = re.findall(r"^```yaml\n(.*?)^```", DOCUMENTATION.read_text(), flags=re.MULTILINE | re.DOTALL)
    read = {}
    for example in examples:
        if example.startswith("data:"):
            continue  # of an experiment: tests/cli/test_group.py
        (tmp_path / "manifest.yaml").write_text(example)
        manifest = read_manifest(tmp_path / "manifest.yaml")
        read[manifest.name] = manifest
    assert list(read) == ["mydata", "pieman", "one_long_story"]
    sloth = read["one_long_story"].stories
    assert [(spec.sound_start_s, spec.sound_end_s) for spec in sloth.values()] == [(0, 302.5), (302.5, None)]
    assert read["one_long_story"].roles == {"tune": ("sloth.run-1", "sloth.run-2")}
    assert read["one_long_story"].subjects == {"010": ("sloth.run-1", "sloth.run-2")}
    assert read["mydata"].root == tmp_path / "files"
    assert read["mydata"].stories["souls"].volumes_discarded == 4
    assert read["mydata"].stories["smoke"].repeats == ("1", "2", "3")
    assert read["mydata"].subjects == {"sub-01": ("sloth", "souls", "smoke"), "sub-02": ("sloth", "smoke")}
    assert read["pieman"].subjects is None
    assert read["pieman"].stories["tunnel"].words.on_scanner_clock
    assert read["pieman"].responses.confounds is not None


def test_the_documentation_names_every_key() -> None:
    text = DOCUMENTATION.read_text()
    specs = (Manifest, StorySpec, TierSpec, ResponseSpec)
    missing = [
        key.name
        for spec in specs
        for key in fields(spec)
        if not key.metadata and not re.search(rf"\b{key.name}\b", text)
    ]
    assert missing == []


def test_names_keep_what_is_written(tmp_path: Path) -> None:
    from brainlit.stories.manifest.schema import load_yaml

    (tmp_path / "m.yaml").write_text("{s: [010, 1e3, 1:20, no, 2024-01-02, 0x1f, 1_0, 1.50, 7], no: 2.0, flag: true}\n")
    names = ["010", "1e3", "1:20", "no", "2024-01-02", "0x1f", "1_0", "1.50", 7]
    assert load_yaml(tmp_path / "m.yaml") == {"s": names, "no": 2.0, "flag": True}
