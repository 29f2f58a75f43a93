"""Claims about daemon/blame.py: a failed attempt's cause is given the rule that did it.
It refuses to list rules; tests/lab/test_verdict.py lets a kernel drop packets."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest

from punchd.daemon.blame import PATIENCE_S, Blame, named
from punchd.firewall import Packet, parse
from punchd.firewall_list import Rules
from punchd.words.outcomes import Failed

SYN = frozenset({"syn"})
SUSPECTS = [
    Packet(what="", going="in", flags=SYN, state="established", remote="198.51.100.2"),
    Packet(what="", going="out", flags=SYN, remote="198.51.100.2"),
]


def rules(rule: str, hook: str = "output") -> Rules:
    head = (
        f"table ip t {{ # handle 1\n\tchain c {{ # handle 1\n\t\ttype filter hook {hook} priority 0; policy accept;\n"
    )
    return Rules((parse(f"{head}\t\t{rule} # handle 5\n\t}}\n}}\n"),))


def failed(code: str) -> Failed:
    return Failed(code, "it failed", "help yourself", {"tcp-simopen": {"code": code}, "udp": {"code": "nothing-heard"}})


@pytest.mark.parametrize(
    ("code", "hook", "found"),
    [
        ("blocked-outgoing", "output", True),
        ("syn-not-captured", "output", True),
        ("blocked-outgoing", "input", False),  # what comes in is not suspected
        ("blocked-incoming", "input", True),
        ("blocked-incoming", "output", True),  # our kernel's answer was dropped
    ],
)
def test_rule_is_named_where_it_is_suspected(code: str, hook: str, *, found: bool) -> None:
    """A rule that has nothing to do with what was seen would mislead."""
    outcome = named(failed(code), [SUSPECTS, SUSPECTS], rules("ip protocol tcp drop", hook))
    cause = outcome.cause["tcp-simopen"]
    assert isinstance(cause, dict)
    assert found == ("rule" in cause)
    assert {"code": "nothing-heard"} == outcome.cause["udp"]
    if found:
        assert "table ip t, chain c: ip protocol tcp drop (handle 5)" == cause["rule"]
        assert cause["mend"] == outcome.advice
        assert outcome.message == f"it failed; it is {cause['rule']}"


def test_nothing_found_leaves_the_verdict_as_it_was() -> None:
    """The packets' word stands without a rule."""
    before = failed("blocked-outgoing")
    assert before == named(before, [SUSPECTS, SUSPECTS], rules("udp dport 53 drop"))


def test_rule_in_doubt_is_called_so() -> None:
    """A set whose elements are not known may hold the peer."""
    outcome = named(failed("blocked-outgoing"), [SUSPECTS, SUSPECTS], rules("ip daddr @banned drop"))
    assert "it may be table ip t" in outcome.message


DATAGRAMS = [
    [
        Packet(what="", going=going, protocol="udp", state="established", remote="198.51.100.2")
        for going in ("in", "out")
    ]
]


@pytest.mark.parametrize(
    ("rule", "hook", "code"),
    [
        ("udp dport 21000-31999 drop", "input", "blocked-incoming"),
        ("udp dport 21000-31999 drop", "output", "nothing-heard"),  # sending would have failed with EPERM
        ("ip saddr @banned drop", "input", "nothing-heard"),  # it may be, or not: silence has many causes
    ],
)
def test_silence_over_udp_is_laid_at_a_rule_that_is_sure_to_make_it(rule: str, hook: str, code: str) -> None:
    """No ring sees datagrams arrive: the rules alone can tell."""
    silent = Failed("nothing-heard", "nothing came", "", {"udp": {"code": "nothing-heard"}})
    outcome = named(silent, DATAGRAMS, rules(rule, hook))
    cause = outcome.cause["udp"]
    assert isinstance(cause, dict)
    assert (code, code) == (outcome.code, cause["code"])
    assert (code == "blocked-incoming") == (rule in outcome.message) == ("mend" in cause)


def test_rules_that_take_long_to_list_keep_no_verdict_waiting() -> None:
    """The attempt's time is up; a caller that hears nothing takes its daemon for hanging."""
    for in_time in (True, False):
        with_rules = Mock(run_in_executor=Mock(return_value=(listing := asyncio.Future[Rules](loop=Mock()))))
        said: list[Failed] = []
        Blame(with_rules).find(Mock(pairs=[]), outcome := Failed("nothing-heard", "", ""), said.append)
        (after_s, late, *arguments), _ = with_rules.call_later.call_args
        assert ([], PATIENCE_S) == (said, after_s)
        if in_time:
            listing.set_result(Rules())
        late(*arguments)
        assert ([] if in_time else [outcome]) == said
        if not in_time:
            listing.set_result(Rules())
        assert int(in_time) == listing.get_loop().call_soon.call_count  # type: ignore[attr-defined]  # a mock
