"""Events, effects and outcomes: frozen values, closed unions, and numbers that C knows, too.
It refuses to test behaviour: words have none."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from pathlib import Path

import msgspec
import pytest

import punchd
from punchd.words import effects, events, notification, outcomes, requests
from punchd.words.events import BY_WINDOW, WINDOWS, Flags, Signal

CSRC = Path(__file__).parents[2] / "csrc"
UNIONS = {
    effects: effects.Effect,
    events: events.Event,
    requests: requests.Request,
}


PARTS = {requests.Place}  # of a request, not one itself


def words_of(module: object) -> set[type]:
    return {
        word
        for _, word in inspect.getmembers(module, inspect.isclass)
        if word.__module__ == module.__name__ and (dataclasses.is_dataclass(word) or issubclass(word, msgspec.Struct))
    }


@pytest.mark.parametrize("module", [effects, events, notification, outcomes, requests])
def test_words_are_values(module: object) -> None:
    """A journal keeps them, two threads of thought share them: nobody may change one."""
    for word in words_of(module):
        assert issubclass(word, msgspec.Struct)
        assert word.__struct_config__.frozen


@pytest.mark.parametrize("module", UNIONS)
def test_unions_are_closed(module: object) -> None:
    """A word that its union forgets would fall through every match."""
    union = UNIONS[module]
    assert words_of(module) - PARTS == set(typing.get_args(union))


def test_signals_bear_the_windows_that_the_filter_looks_for() -> None:
    """csrc/punchd.h says the same."""
    header = (CSRC / "punchd.h").read_text(encoding="ascii")
    for signal in Signal:
        found = re.search(rf"PUNCHD_WINDOW_{signal.name}\b\D*(0x[0-9a-fA-F]+|\d+)", header)
        assert found is not None
        assert WINDOWS[signal] == int(found[1], 0)


def test_every_signal_has_a_window_of_its_own() -> None:
    """They are told apart by nothing else."""
    assert set(Signal) == set(WINDOWS)
    assert {signal: BY_WINDOW[window] for signal, window in WINDOWS.items()} == {signal: signal for signal in Signal}


def test_flags_are_plain_numbers() -> None:
    """Each segment seen is asked for them several times, and IntFlag arithmetic takes microseconds."""
    for name in ("SYN", "ACK", "RST", "SYN_ACK"):
        assert int is type(getattr(events, name))
    assert Flags.SYN | Flags.ACK == events.SYN_ACK


@pytest.mark.parametrize("floor", ["words", "core", "wire", "edge", "daemon"])
def test_no_floor_has_dataclasses(floor: str) -> None:
    """Each would be compiled anew at each start of the daemon (decision 0031)."""
    folder = Path(punchd.__file__).parent / floor
    assert [] == [path.name for path in folder.rglob("*.py") if "@dataclass" in path.read_text(encoding="utf-8")]
