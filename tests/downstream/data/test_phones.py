"""The folding of TIMIT's symbols, against the table of Lee & Hon (1989) typed from its usual printing."""

from __future__ import annotations

from brainlit.downstream.data.phones import CLASS_OF, CLASSES
from tests.layouts.timit import SYMBOLS

MERGED = """
    aa:aa,ao  ah:ah,ax,ax-h  er:er,axr  hh:hh,hv  ih:ih,ix  l:l,el  m:m,em  n:n,en,nx  ng:ng,eng  sh:sh,zh  uw:uw,ux
    sil:pcl,tcl,kcl,bcl,dcl,gcl,h#,pau,epi
"""
"""Reduced classes as printed; every other symbol but q is a class of its own."""


def test_every_one_of_61_symbols_has_its_class() -> None:
    assert len(SYMBOLS) == len(set(SYMBOLS)) == 61
    assert set(CLASS_OF) == set(SYMBOLS)


def test_39_classes_as_printed() -> None:
    groups = {line.split(":")[0]: line.split(":")[1].split(",") for line in MERGED.split()}
    expected = {symbol: name for name, symbols in groups.items() for symbol in symbols}
    expected |= {symbol: symbol for symbol in SYMBOLS if symbol not in expected and symbol != "q"}
    assert {symbol: name for symbol, name in CLASS_OF.items() if name} == expected
    assert CLASS_OF["q"] is None
    assert len(CLASSES) == 39
    assert list(CLASSES) == sorted(set(expected.values()))
