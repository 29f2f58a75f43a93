"""Claims about errors.py: the table of codes is whole, and says who must act."""

from __future__ import annotations

import pytest

from punchd.words.errors import Bug, Code, HostError, Party, PeerError, PunchdError, RequestError


@pytest.mark.parametrize("code", list(Code))
def test_each_code_is_its_name_in_kebab_case_and_has_advice(code: Code) -> None:
    """One name per thing; an error without advice is a shrug."""
    assert code.name.lower().replace("_", "-") == code
    assert isinstance(code.party, Party)
    assert code.advice


def test_an_error_carries_the_tables_advice_unless_the_place_knows_better() -> None:
    """Most places have nothing to add."""
    assert Code.TIME_UP.advice == RequestError(Code.TIME_UP, "10 s are over").advice
    assert "wait" == RequestError(Code.TIME_UP, "10 s are over", advice="wait").advice
    assert "time-up: 10 s are over" == str(RequestError(Code.TIME_UP, "10 s are over"))


def test_each_party_has_its_exception_and_the_root_is_never_raised() -> None:
    """Who catches an error wants to know who must act."""
    assert set(Party) == {kind.party for kind in (RequestError, PeerError, HostError, Bug)}
    with pytest.raises(TypeError):
        PunchdError(Code.INTERNAL, "no")
