"""Descriptors and second messages that lie: a refusal, or else no more than the budget, as the victim counts.

It refuses to trust the daemon's own count: the victim's kernel counts what arrives there, a plain socket what leaves.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

import pytest
from duo import Talker
from msgspec.structs import replace
from running import Daemon
from tap import Tap

from punchd.core.budget import Limits
from punchd.lab.topology import Lab
from punchd.wire.descriptor import encode_descriptor
from punchd.wire.peer import decode_notification, encode_second
from punchd.words.addresses import Endpoint
from punchd.words.nat import SAMPLES_MAX, STEP_MAX, Allocation, Dependence, Descriptor, Face, NatClass, Sample
from punchd.words.notification import OFFERS_MAX, Ready, SecondMessage

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.needs("ring", "raw", "repair", "rules")]

VICTIM = "198.51.100.2"  # B's public address in every lab: it runs no punchd here, and has asked for nothing
STRICTEST = Dependence.ADDRESS_AND_PORT
RANDOM = NatClass(STRICTEST, STRICTEST, Allocation.RANDOM)
BLOCKS_NOTHING = NatClass(STRICTEST, Dependence.INDEPENDENT, Allocation.RANDOM)
MORTAL = NatClass(Dependence.INDEPENDENT, STRICTEST, Allocation.PRESERVING, outlives_icmp=False)
MINDS_NOTHING = NatClass(Dependence.INDEPENDENT, STRICTEST, Allocation.PRESERVING, drops_strays=True, forgives=True)
ATTEMPTS = 16
WATCHED_S = 3.0
HOLE_TTL = 2
HANDFUL = 3 * OFFERS_MAX
"""What one attempt without a fan may send to whoever is named: a few packets for each row of its plan."""


@pytest.fixture(name="lab")
def _lab() -> Iterator[Lab]:
    with Lab("linux", "open", echo=None) as made:
        made.b.nft("table ip victim { counter came { }; chain c { type filter hook prerouting priority -300;"
                   f" ip saddr {made.public_a} counter name came drop; }}; }}")  # fmt: skip
        yield made


def came(lab: Lab) -> int:
    """How many packets of A's the victim has been sent."""
    (packets,) = re.findall(r"packets (\d+)", lab.b.run(["nft", "list", "counter", "ip", "victim", "came"]))
    return int(packets)


def lying(nat: NatClass = RANDOM, *, address: str = VICTIM, host: str = "10.0.2.2", step: int = 0, samples: int = 0,
          late_s: float = 1.0, own: int = 22000, public: int = 40000) -> Descriptor:  # fmt: skip
    """A descriptor of a peer that does not exist, the same over both transports."""
    now_ms = round((time.time() - late_s) * 1000)
    if step:
        nat = replace(nat, allocation=Allocation.SEQUENTIAL, step=step)
    taken = tuple(
        Sample(now_ms - 40 * (samples - turn), own, 1024 + (public + turn * (step or 1)) % 64_000)
        for turn in range(samples)
    )
    face = Face(own, Endpoint(address, public), nat, taken)
    return Descriptor(host, now_ms, tcp=face, udp=face)


REFUSED: dict[str, str | list[str]] = {
    "loopback": encode_descriptor(lying(address="127.0.0.1")),
    "private": encode_descriptor(lying(address="192.168.1.1")),
    "carrier": encode_descriptor(lying(address="100.64.0.1")),
    "multicast": encode_descriptor(lying(address="224.0.0.1")),
    "everybody": encode_descriptor(lying(address="255.255.255.255")),
    "host-loopback": encode_descriptor(lying(host="127.0.0.1")),
    "host-everybody": encode_descriptor(lying(host="255.255.255.255")),
    "step": encode_descriptor(lying(step=STEP_MAX + 1, samples=10)),
    "step-down": encode_descriptor(lying(step=-STEP_MAX - 1, samples=10)),
    "samples": encode_descriptor(lying(samples=SAMPLES_MAX + 1)),
    "service": encode_descriptor(lying(public=22)),
    "own-service": encode_descriptor(lying(own=8080)),
    "future": encode_descriptor(lying(late_s=-3600.0)),
    "long": "ZTEB" + 600 * "A",
    "candidates": 65 * [encode_descriptor(lying())],
    "all-bad": 64 * [encode_descriptor(lying(address="10.0.1.1"))],
}


@pytest.mark.parametrize("key", ["peer", "self"])
@pytest.mark.parametrize("lie", REFUSED)
def test_descriptor_that_cannot_be_true_is_refused_and_sends_nothing(lab: Lab, lie: str, key: str) -> None:
    """Addresses nobody may be sent to, steps and counts no NAT has, ports no punchd opens: at no packet's cost."""
    request = {"id": "1", "call": "initiate", "peer": lab.public_b, "self": lab.public_a, "timeout_ms": 500}
    with Daemon(lab.a) as daemon, Tap(lab.a) as tap, Talker(daemon.path) as talker:
        for transport in ("tcp", "udp"):
            answer = talker.ask(request | {key: REFUSED[lie], "transport": transport})
            assert answer["code"] in {"bad-value", "target-refused"}
            assert answer["advice"]
        assert [] == tap.packets()


ON_LINK = "10.0.1.1"


@pytest.mark.parametrize(
    ("options", "stranger", "host"),
    [((), True, ON_LINK), (("--allow-private",), True, ON_LINK), ((), False, "10.0.9.1")],
)  # who claims to live behind our own NAT is believed on our own link, with --allow-private beyond it (decision 0024)
def test_private_host_in_a_descriptor_is_nobodys_target(
    lab: Lab, options: tuple[str, ...], host: str, *, stranger: bool
) -> None:
    """It counts behind the same public address alone, and near by; else a peer aims us at our net."""
    keeps = NatClass(allocation=Allocation.PRESERVING)
    public = VICTIM if stranger else lab.public_a
    text = encode_descriptor(lying(keeps, address=public, host=host, public=22000))
    own = encode_descriptor(lying(keeps, address=lab.public_a, host=lab.a.address, public=22000))
    with Daemon(lab.a, *options) as daemon, Tap(lab.a) as tap, Talker(daemon.path) as talker:
        talker.ask({"id": "1", "call": "initiate", "peer": text, "self": own, "timeout_ms": 500, "transport": "udp"})
        assert {public} == {packet.dst for packet in tap.packets()}


ABSURD: dict[str, Descriptor] = {
    "foreign": lying(),
    "foreign-that-takes-all": lying(BLOCKS_NOTHING),
    "foreign-that-minds-nothing": lying(MINDS_NOTHING),
    "step": lying(step=STEP_MAX, samples=SAMPLES_MAX),
    "step-down": lying(step=-STEP_MAX, samples=SAMPLES_MAX),
    "of-1970": lying(step=1, samples=SAMPLES_MAX, late_s=time.time() - 60),
}


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("lie", ABSURD)
def test_descriptor_of_a_victim_brings_it_no_more_than_the_budget(lab: Lab, lie: str, transport: str) -> None:
    """The peer's word chose whom sixteen attempts fire at, and its second messages bid them fire at once, and again."""
    limit = Limits().target
    own = encode_descriptor(lying(MORTAL, address=lab.public_a, host=lab.a.address))  # fires unasked where none minds
    request = {
        "call": "initiate", "peer": encode_descriptor(ABSURD[lie]), "transport": transport, "timeout_ms": 8000,
        "self": own if ABSURD[lie].udp.nat.forgives else lab.public_a,
    }  # fmt: skip
    with Daemon(lab.a) as daemon, Talker(daemon.path) as talker:
        began, calls = time.monotonic(), []
        for number in range(ATTEMPTS):
            talker.say(request | {"id": str(number)})
        while len(calls) < ATTEMPTS:
            heard = talker.hear()
            assert heard["status"] == "progress", heard
            if "notification" in heard:
                nonce = decode_notification(heard["notification"]).nonce
                call = SecondMessage(nonce, tuple(Ready(place) for place in range(OFFERS_MAX)))
                calls.append({"call": "notify", "attempt": heard["id"], "notification": encode_second(call)})
        number = 0
        while time.monotonic() - began < WATCHED_S:
            for call in calls:
                number += 1
                assert "ok" == _answer_to(talker, call | {"id": f"n{number}"})["status"]
            time.sleep(0.05)
            packets = came(lab)
            # fans pay before they send; what the others send is a handful each, and bounded by itself
            assert packets <= limit.burst + limit.rate * (time.monotonic() - began) + ATTEMPTS * HANDFUL


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_second_messages_that_move_the_peer_about_bring_a_victim_a_handful(lab: Lab, transport: str) -> None:
    """Each names other ports, for each offer: else whoever answers notifications could have us scan a third party."""
    with counted_attempt(lab, transport) as (talker, nonce), Tap(lab.a) as tap:
        for number in range(300):
            ready = tuple(Ready(place, 30_000 + OFFERS_MAX * number + place) for place in range(OFFERS_MAX))
            said = {"id": f"n{number}", "call": "notify", "attempt": "1",
                    "notification": encode_second(SecondMessage(nonce, ready))}  # fmt: skip
            assert "ok" == _answer_to(talker, said)["status"]
        time.sleep(0.2)
        ports = {packet.dport for packet in tap.packets() if packet.dst == VICTIM and packet.ttl > HOLE_TTL}
        assert 0 < len(ports) <= 2 * OFFERS_MAX, "each offer has one port of its own, and may move once"
        assert came(lab) <= Limits().target.burst


@pytest.mark.parametrize(
    ("ready", "code"),
    [
        ((Ready(0, 22),), "port-refused"),  # a service of the victim's
        (tuple(Ready(0, 30_000 + place) for place in range(OFFERS_MAX + 1)), "notification-broken"),  # too many
        ((Ready(200, 30_000),), "ok"),  # an offer that was never made
        ((), "ok"),
    ],
)
def test_second_message_that_names_what_is_not_there_sends_nothing(
    lab: Lab, ready: tuple[Ready, ...], code: str
) -> None:
    """It has no addresses to lie with; its ports and its counts are checked."""
    with counted_attempt(lab, "tcp") as (talker, nonce), Tap(lab.a) as tap:
        said = {"id": "n", "call": "notify", "attempt": "1", "notification": encode_second(SecondMessage(nonce, ready))}
        answer = _answer_to(talker, said)
        assert code == answer.get("code", answer["status"])
        assert [] == [packet for packet in tap.packets() if packet.ttl > HOLE_TTL]


@contextlib.contextmanager
def counted_attempt(lab: Lab, transport: str) -> Iterator[tuple[Talker, bytes]]:
    """One attempt of A's towards the victim, and the nonce by which second messages name it."""
    request = {"id": "1", "call": "initiate", "peer": VICTIM, "self": lab.public_a, "transport": transport}
    with Daemon(lab.a) as daemon, Talker(daemon.path) as talker:
        talker.say(request | {"timeout_ms": 8000})
        yield talker, decode_notification(talker.hear()["notification"]).nonce


def _answer_to(talker: Talker, request: dict[str, object]) -> dict[str, object]:
    talker.say(request)
    while (heard := talker.hear())["id"] != request["id"]:
        pass
    return heard
