from __future__ import annotations

import pytest

from brainlit.encoding import LeakError, Roles, Span, make_roles, parse_span

N_TRS = {"alice": 300, "wonder land": 120, "tea": 50}


def test_spans_are_read_in_all_their_forms() -> None:
    assert parse_span("alice", N_TRS) == Span("alice", 0, 300)
    assert parse_span(" alice[120:240] ", N_TRS) == Span("alice", 120, 240)
    assert parse_span("wonder land[:100]", N_TRS) == Span("wonder land", 0, 100)
    assert parse_span("tea[10:]", N_TRS).n_trs == 40
    assert parse_span(str(Span("tea", 3, 9)), N_TRS) == Span("tea", 3, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alise", r"unknown story 'alise'\. Did you mean 'alice'"),
        ("zzz", "Known: alice, tea, wonder land"),
        ("alice[50:50]", "is empty"),
        ("alice[60:50]", "is empty"),
        ("alice[0:301]", "'alice' has 300 TRs"),
        ("alice[1-2]", "not a span"),
        ("alice[-5:20]", "not a span"),
        ("", "not a span"),
    ],
)
def test_bad_spans_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_span(text, N_TRS)


def test_roles_hold_their_spans() -> None:
    roles = make_roles({"tune": ["alice[:100]"], "fit": ["alice[110:]", "tea"], "score": ["wonder land"]}, N_TRS, 10)
    assert isinstance(roles, Roles)
    assert roles.spans("fit") == (Span("alice", 110, 300), Span("tea", 0, 50))
    assert roles.spans("choose") == ()
    assert roles.stories("fit") == ("alice", "tea")
    assert roles.n_trs("fit") == 240
    assert roles.as_text()["score"] == ["wonder land[0:120]"]
    with pytest.raises(ValueError, match=r"unknown role 'scores'\. Did you mean 'score'"):
        roles.spans("scores")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("alice[:100]", "alice[99:200]", r"alice\[0:100\] \(tune\) and alice\[99:200\] \(score\) share 1 TRs"),
        ("alice", "alice[20:30]", "share 10 TRs|share 30 TRs"),
        ("alice[:100]", "alice[109:]", "are 9 TRs apart; window and delays reach over 10"),
        ("alice[109:]", "alice[:100]", "9 TRs apart"),
    ],
)
def test_leaks_between_roles_are_refused(first: str, second: str, message: str) -> None:
    roles = {"tune": [first], "score": [second]}
    with pytest.raises(LeakError, match=message):
        make_roles(roles, N_TRS, purge_trs=10)
    assert make_roles(roles, N_TRS, purge_trs=10, allow=["score and tune"]).allow == ("score and tune",)


def test_an_exception_covers_only_its_pair() -> None:
    roles = {"fit": ["alice"], "choose": ["alice"], "score": ["alice"]}
    with pytest.raises(LeakError, match="score"):
        make_roles(roles, N_TRS, purge_trs=0, allow=["fit and choose"])


def test_other_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown role 'tunes'\. Did you mean 'tune'"):
        make_roles({"tunes": ["alice"]}, N_TRS, 0)
    with pytest.raises(ValueError, match="'fit, choose' is not understood"):
        make_roles({"fit": ["alice"]}, N_TRS, 0, allow=["fit, choose"])
    with pytest.raises(ValueError, match="a gap is not negative"):
        make_roles({"fit": ["alice"]}, N_TRS, -1)
    with pytest.raises(LeakError, match="would count twice"):
        make_roles({"fit": ["alice[:100]", "alice[50:120]"]}, N_TRS, 0)


def test_spans_of_one_role_may_touch() -> None:
    roles = make_roles({"fit": ["alice[:100]", "alice[100:]"]}, N_TRS, purge_trs=30)
    assert roles.n_trs("fit") == 300
