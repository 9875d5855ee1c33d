"""Which errors speak to the user, and how they are said."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from brainlit.cli.errors import INTERRUPTED, explained, is_for_the_user, message_of
from brainlit.results.run_directory import RunError
from brainlit.timebase import TimeBase


def _caught(action: object) -> BaseException:
    with pytest.raises(Exception) as caught:
        action()  # type: ignore[operator]
    return caught.value


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda: TimeBase.regular(3, tr_s=-1), True),
        (lambda: open("no/such/file"), True),  # noqa: PTH123, SIM115
        (lambda: (_ for _ in ()).throw(RunError("exists")), True),
        (lambda: json.loads("{"), False),
        (lambda: [][1], False),
        (lambda: int("x"), False),
        (lambda: bytearray(1 << 62), True),
        (lambda: (_ for _ in ()).throw(RuntimeError("could not create a primitive")), True),
        (lambda: (_ for _ in ()).throw(RuntimeError("can't start new thread")), True),
        (lambda: (_ for _ in ()).throw(RuntimeError("shapes differ")), False),
    ],
)
def test_errors_of_brainlit_and_of_files_are_for_the_user(action: object, expected: bool) -> None:
    assert is_for_the_user(_caught(action)) is expected


def test_one_message_no_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRAINLIT_DEBUG", raising=False)
    assert explained(lambda: TimeBase.regular(3, tr_s=-1).n_trs) == 2
    assert capsys.readouterr().err.startswith("error: tr_s is -1.0; a repetition time is a positive number")


def test_our_own_bugs_keep_their_traceback() -> None:
    with pytest.raises(IndexError):
        explained(lambda: [][1])


def test_a_machine_without_memory_is_said_in_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BRAINLIT_DEBUG", raising=False)

    def greedy() -> int:
        return len(bytearray(1 << 62))

    assert explained(greedy) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: this machine had no memory, or no thread, left (MemoryError)")
    assert "--data.batch_size" in said


def test_ctrl_c_ends_clean(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert explained(interrupted) == INTERRUPTED
    assert "goes on from the last checkpoint" in capsys.readouterr().err


def test_a_missing_variable_is_said_with_its_key_and_the_cure() -> None:
    error = _caught(lambda: OmegaConf.to_container(OmegaConf.create({"a": "${oc.env:NOT_SET_AT_ALL}"}), resolve=True))
    assert isinstance(error, OmegaConfBaseException)
    assert "NOT_SET_AT_ALL" in message_of(error)
    assert "(in a)" in message_of(error)
    assert "${oc.env:NAME,default}" in message_of(error)
