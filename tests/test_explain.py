"""`punchctl explain`: the plan as a table and as JSON, of nicknames and of descriptors.
It refuses to judge the plan; tests/core/test_plan.py does."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from punchd.core.plan import Times
from punchd.explain import explained, main, record, view
from punchd.wire.descriptor import decode_descriptor, encode_descriptor
from punchd.words.addresses import Endpoint
from punchd.words.nat import Allocation, Dependence, Descriptor, Face, NatClass
from punchd.words.notification import Opening, Spread
from punchd.words.plan import Lanes, Row

NAT = NatClass(Dependence.INDEPENDENT, Dependence.ADDRESS_AND_PORT, Allocation.RANDOM)
DESCRIPTOR = encode_descriptor(Descriptor("10.0.2.2", 0, udp=Face(22000, Endpoint("198.51.100.2", 40000), NAT)))


def test_the_table_has_a_line_for_each_row_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """A person reads why, and in which order."""
    assert 0 == main(["linux-synfilter", "linux-noloose"])
    title, head, first, *rest = capsys.readouterr().out.splitlines()
    assert "linux-synfilter to linux-noloose over tcp, 8 rows, primers of TTL 2:" == title
    assert ["#", "technique", "opens", "ports", "when", "why"] == head.split()
    assert first.startswith("1  tcp-simopen    refired  drawn  when called, at last after 5 s  the peer opens")
    assert 7 == len(rest)


@pytest.mark.parametrize(("ttl", "tried", "shown"), [(None, 0, 2), (None, 1, 4), (None, 2, 3), (None, 3, 2), (3, 1, 3)])
def test_a_retry_primes_as_far_as_it_says(
    ttl: int | None, tried: int, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another TTL is part of another try, unless it was measured."""
    own = "linux" if ttl is None else encode_descriptor(replace(decode_descriptor(DESCRIPTOR), ttl=ttl))
    assert 0 == main([own, "linux", "--transport", "udp", "--tried", str(tried)])
    assert f", primers of TTL {shown}:" in capsys.readouterr().out.splitlines()[0]


def test_json_has_the_same_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """For programs."""
    assert 0 == main(["icmp-kills", "linux", "--transport", "udp", "--json"])
    assert ["refired", "crossed"] == [row["opens"] for row in json.loads(capsys.readouterr().out)]


def test_a_descriptor_says_more_than_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Its mapping is aimed at."""
    assert 0 == main(["linux", DESCRIPTOR, "--transport", "udp"])
    told = capsys.readouterr().out
    assert "linux to the descriptor over udp" in told
    assert "the peer's 22000 seen as 40000" in told


def test_predicted_ports_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """As if the NAT had just been sampled."""
    assert 0 == main(["sequential:step=2", "linux", "--tried", "1", "--side-delay-ms", "50"])
    assert "our drawn one seen as 40" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["cisco", "ZTEx", "ZTE" + "A" * 40])
def test_what_is_no_class_is_told(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, and with a status."""
    assert 2 == main([text, "linux"])
    assert capsys.readouterr().err.startswith("punchctl explain: ")


def test_a_fan_is_told_in_ports() -> None:
    """How many, from where, how far apart."""
    lanes = Lanes(Spread(0, 8), Spread(40007, 4, 8), Spread(0), Spread(23000), handshake=True)
    told = record(Row("tcp-birthday", Opening.CALLED, lanes=lanes))
    assert {"own": [0, 8, 1], "seen": [40007, 4, 8], "peers": [0, 1, 1], "aims": [23000, 1, 1]} == told["lanes"]
    assert told["handshake"]


def test_explain_needs_no_daemon_and_no_clock() -> None:
    """The same classes, the same plan."""
    plans = [explained(view("random", "tcp", 0.0), view("linux", "tcp", 0.0), "tcp", times=Times()) for _ in "ab"]
    assert plans[0] == plans[1]
