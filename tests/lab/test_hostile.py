"""Bad input against a real daemon: a clear error or a quiet end, bounded memory, nothing left, others undisturbed.

It refuses to test parsers byte by byte (tests/wire does): here is what the daemon as a whole makes of hostility.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from duo import Duo, Talker, duo
from running import BENT, NOBODY, QUIET_S, Daemon, held_sockets, rules
from tap import Tap

from punchd import client
from punchd.lab.topology import Lab
from punchd.wire.peer import decode_notification, encode_notification
from punchd.words.addresses import LISTEN_PORTS
from punchd.words.notification import NONCE_LEN, Notification, Offer, Syn

pytestmark = [pytest.mark.lab, pytest.mark.slow]

LINE_MAX_LEN = 65_536
NOTICE_S = 0.5
"""What another client's ping may take meanwhile, on a busy machine."""
MEMORY_KIB = 6 * 1024
SYN = Syn(seq=1, window=64240, mss=1460, window_scale=7, sack_permitted=True, timestamp=7)


@pytest.fixture(scope="module", name="both")
def _both() -> Iterator[Duo]:
    counted = [*BENT, "counted"]
    with duo("linux", "linux", command_a=counted, command_b=counted) as made:
        with made.punched("tcp-simopen"), made.punched("udp"):
            pass  # what is loaded once and kept for ever is loaded now
        time.sleep(QUIET_S)
        yield made


@pytest.fixture(autouse=True, name="bystander")
def _bystander(both: Duo) -> Iterator[None]:
    """A well-behaved client pings both daemons all the while; afterwards nothing is left of the test."""
    daemons = (both.a, both.b)
    for daemon in daemons:
        daemon.settles(daemon.counts() | {"flows": 0, "tuples": 0})
    before = [(daemon.counts(), rules(daemon.place)) for daemon in daemons]
    over, waits_s, failures = threading.Event(), [0.0], list[BaseException]()

    def ping() -> None:
        try:
            with client.connect_blocking(both.a.path) as near, client.connect_blocking(both.b.path) as far:
                while not over.wait(0.01):
                    for daemon in (near, far):
                        start = time.monotonic()
                        daemon.ping()
                        waits_s.append(time.monotonic() - start)
        except BaseException as error:
            failures.append(error)

    pinging = threading.Thread(target=ping)
    pinging.start()
    yield
    over.set()
    pinging.join()
    assert [] == failures
    assert max(waits_s) < NOTICE_S
    for daemon, (counts, ruleset) in zip(daemons, before, strict=True):
        assert {} == daemon.settles(counts)
        assert ruleset == rules(daemon.place)
        assert [] == held_sockets(daemon.place)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"hello\n", "bad-json"),
        (b"\n", "bad-json"),
        (b"[1]\n", "bad-json"),
        (b'{"id":"x","call":"ping"\n', "bad-json"),
        (b'{"id":"x","call":"ping","id":"y"}\n', "bad-json"),
        (b'{"id":"x","call":"initiate","peer":"198.51.100.2","timeout_ms":NaN}\n', "bad-json"),
        (b'{"id":"\xff","call":"ping"}\n', "bad-json"),
        (b"[" * 60000 + b"\n", "bad-json"),
        (b'{"id":"x","call":"dance"}\n', "unknown-call"),
        (b'{"id":"x","call":"ping","please":1}\n', "unknown-key"),
        (b'{"id":"x","call":"initiate"}\n', "missing-key"),
        (b'{"id":"x"}\n', "missing-key"),
        (b'{"id":7,"call":"ping"}\n', "bad-value"),
        (b'{"id":"","call":"ping"}\n', "bad-value"),
        (b'{"id":"' + b"x" * 65 + b'","call":"ping"}\n', "bad-value"),
        (b'{"id":"x","call":"initiate","peer":7}\n', "bad-value"),
        (b'{"id":"x","call":"initiate","peer":"example.org"}\n', "bad-value"),
        (b'{"id":"x","call":"initiate","peer":"2001:db8::1"}\n', "bad-value"),
        (b'{"id":"x","call":"initiate","peer":"198.51.100.2","techniques":["tcp-magic"]}\n', "bad-value"),
        (b'{"id":"x","call":"initiate","peer":"198.51.100.2","techniques":["udp"]}\n', "bad-value"),
        (b'{"id":"x","call":"initiate","peer":"198.51.100.2","timeout_ms":-1}\n', "bad-value"),
        (b'{"id":"x","call":"initiate","peer":"198.51.100.2","secret":"short"}\n', "bad-value"),
        (b'{"id":"x","call":"notify","attempt":"none","notification":"x"}\n', "no-such-attempt"),
        (b'{"id":"x","call":"respond","notification":"x"}\n', "notification-broken"),
    ],
)
def test_bad_line_gets_its_error_and_the_connection_goes_on(both: Duo, line: bytes, code: str) -> None:
    """A slip of one request must not cost the others of the same connection."""
    with Talker(both.a.path) as talker:
        answer = talker.ask(line)
        assert ("error", code) == (answer["status"], answer["code"])
        assert answer["message"]
        assert answer["advice"]
        assert "ok" == talker.ask({"id": "after", "call": "ping"})["status"]


def test_line_too_long_is_skipped_whole_and_costs_no_memory(both: Duo) -> None:
    """A caller that never ends its line must not fill the daemon."""
    before_kib = both.a.memory_kib()
    with Talker(both.a.path) as talker:
        for _ in range(320):
            talker.say(b"x" * LINE_MAX_LEN)
        assert both.a.memory_kib() - before_kib < MEMORY_KIB
        talker.say(b"\n")
        assert "line-too-long" == talker.hear()["code"]
        assert "ok" == talker.ask({"id": "1", "call": "ping"})["status"]


def test_half_a_line_then_silence_holds_up_nobody(both: Duo) -> None:
    """A stuck caller is only its own problem: ten of them, and the bystander goes on."""
    stuck = [Talker(both.a.path) for _ in range(10)]
    for talker in stuck:
        talker.say(b'{"id":"1","call":')
    time.sleep(0.2)
    stuck[0].say(b'"ping"}\n')
    assert "ok" == stuck[0].hear()["status"]
    for talker in stuck:
        talker.close()


def test_descriptor_sent_to_us_is_refused_and_not_kept(both: Duo) -> None:
    """Otherwise any caller could fill our table, or have us hold its files open."""
    reading, writing = os.pipe()
    with Talker(both.a.path) as talker:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing] * 5))]
        talker.sock.sendmsg([b'{"id":"1","call":"ping"}\n'], rights)
        assert {"descriptor-refused", None} == {talker.hear().get("code"), talker.hear().get("code")}
    os.close(writing)
    assert b"" == os.read(reading, 1)  # nobody else holds the other end
    os.close(reading)


def test_caller_that_never_reads_is_bounded_and_delays_nobody(both: Duo) -> None:
    """Its replies may fill its own queue, not our memory."""
    before_kib = both.a.memory_kib()
    with Talker(both.a.path) as talker:
        talker.sock.settimeout(0.3)
        ping = b'{"id":"1","call":"ping"}\n' * 1000
        sent_len = 0
        try:
            while sent_len < 64 << 20:
                sent_len += talker.sock.send(ping)
        except TimeoutError:
            pass
        assert sent_len < 8 << 20
        assert both.a.memory_kib() - before_kib < MEMORY_KIB


def test_attempts_of_a_caller_that_never_reads_end_with_it(both: Duo) -> None:
    """Hundreds of attempts, no reader, then death: each must be undone."""
    with Talker(both.a.path) as talker:
        for number in range(300):
            talker.say(_initiate(both, id=str(number), timeout_ms=60_000))
        _wait_for_open(both.a, 300)
    _wait_for_open(both.a, 0)


@pytest.mark.parametrize("role", ["initiate", "respond"])
def test_caller_that_dies_mid_attempt_cancels_it(both: Duo, role: str) -> None:
    """Nobody will read the outcome: every port, socket and timer goes at once."""
    daemon = both.a if role == "initiate" else both.b
    with Talker(daemon.path) as talker:
        for number in range(20):
            if role == "initiate":
                talker.say(_initiate(both, id=str(number), timeout_ms=60_000))
            else:
                talker.say(_respond(_notification(both, "tcp-simopen", 25100 + number), id=str(number)))
        _wait_for_open(daemon, 20)
    _wait_for_open(daemon, 0)
    assert [] == held_sockets(daemon.place)


def test_stranger_is_kept_out_by_the_mode_and_told_so_beyond_it(both: Duo) -> None:
    """The kernel says who calls; what a request claims does not count."""
    assert "EACCES" == _heard_by_nobody(both.a.path)
    os.chmod(both.a.path, 0o666)
    try:
        heard = _heard_by_nobody(both.a.path)
    finally:
        os.chmod(both.a.path, 0o660)
    assert "not-permitted" == json.loads(heard)["code"]
    assert f'"uid": {NOBODY}' in both.a.log()


def test_too_many_attempts_are_refused_and_counted_down_again(both: Duo) -> None:
    """The limit is per user, and an ended attempt makes room."""
    with Daemon(both.lab.a, "--attempts-per-uid", "3") as daemon, Talker(daemon.path) as talker:
        for number in range(3):
            talker.say(_initiate(both, id=str(number)))
            assert "notification" in talker.hear()
        assert "too-many-attempts" == talker.ask(_initiate(both, id="more"))["code"]
        talker.say({"id": "c", "call": "cancel", "attempt": "0"})
        assert ["cancelled", None] == [talker.final().get("code"), talker.final().get("code")]
        talker.say(_initiate(both, id="again"))
        assert "notification" in talker.hear()


# -- notifications ---------------------------------------------------------------------------------------------------


def test_truncated_or_altered_notification_is_broken_and_sends_nothing(both: Duo) -> None:
    """Every cut and every flipped letter: nothing of it may be believed."""
    text = _notification(both, "tcp-simopen", 25000)
    bad = [text[:at] for at in range(0, len(text), 7)]
    bad += [text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :] for at in range(4, len(text), 5)]
    with Tap(both.lab.b) as tap, Talker(both.b.path) as talker:
        codes = {talker.ask(_respond(text))["code"] for text in bad}
        assert codes <= {"notification-broken", "notification-version", "notification-forged", "bad-value"}
        assert "notification-broken" in codes
        assert [] == tap.packets()


def test_other_version_is_named_with_both_numbers(both: Duo) -> None:
    """The one who must act is the one with the older punchd; the message has to say which."""
    with Talker(both.b.path) as talker:
        answer = talker.ask(_respond("cDEC" + _notification(both, "udp", 25000)[4:]))
    assert "notification-version" == answer["code"]
    assert {"theirs": 2, "ours": 1} == answer["cause"]


def test_secret_that_differs_or_is_missing_is_a_forgery(both: Duo) -> None:
    """Where the side channel is not trusted, only the secret counts."""
    secret, other = "a secret of both applications", "a secret of somebody else"
    sealed = _notification(both, "udp", 25001, secret=secret.encode())
    plain = _notification(both, "udp", 25002)
    with Tap(both.lab.b) as tap, Talker(both.b.path) as talker:
        for text, more in ((sealed, {"secret": other}), (sealed, {}), (plain, {"secret": secret})):
            assert "notification-forged" == talker.ask(_respond(text) | more)["code"]
        assert [] == tap.packets()


def test_replayed_notification_is_named_and_sends_nothing(both: Duo) -> None:
    """Whoever copies a notification must not be able to make the responder fire again."""
    text = _notification(both, "tcp-simopen", 25003)
    with Talker(both.b.path) as talker:
        assert "nothing-heard" == talker.ask(_respond(text, timeout_ms=200))["code"]
        time.sleep(0.1)
        with Tap(both.lab.b) as tap:
            for _ in range(5):
                assert "already-responded" == talker.ask(_respond(text))["code"]
            time.sleep(0.2)
            assert [] == tap.packets()


@pytest.mark.parametrize("technique", ["tcp-simopen", "tcp-direct", "tcp-nutss", "tcp-syni", "tcp-midstream", "udp"])
def test_service_on_a_named_port_stays_closed_to_strangers(both: Duo, technique: str) -> None:
    """A notification must never open a local service: no connection to it, and no hole either."""
    kind = socket.SOCK_DGRAM if technique == "udp" else socket.SOCK_STREAM
    with both.lab.b.socket(socket.AF_INET, kind) as service, Tap(both.lab.b) as tap, Talker(both.b.path) as talker:
        service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        service.bind(("0.0.0.0", 25004))
        if kind == socket.SOCK_STREAM:
            service.listen()
        service.settimeout(0.1)
        answer = talker.ask(_respond(_notification(both, technique, 25004), timeout_ms=300))
        assert "port-taken" == answer["code"]
        with pytest.raises(TimeoutError):
            service.accept() if kind == socket.SOCK_STREAM else service.recv(1)
        assert 25004 not in {packet.sport for packet in tap.packets()}


@pytest.mark.parametrize("address", ["::", "10.0.2.2"])
@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_service_is_seen_whatever_it_is_bound_to(both: Duo, address: str, option: int) -> None:
    """Services listen on one address, on both families, with ports to share: each is a service."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with both.lab.b.socket(family, socket.SOCK_STREAM) as service, Talker(both.b.path) as talker:
        service.setsockopt(socket.SOL_SOCKET, option, 1)
        service.bind((address, 25007))
        service.listen()
        assert "port-taken" == talker.ask(_respond(_notification(both, "tcp-syni", 25007)))["code"]


@pytest.mark.parametrize("alive", [True, False])
def test_port_of_a_punched_connection_serves_other_peers(both: Duo, alive: bool) -> None:
    """Live connections and those in TIME-WAIT must not eat up the range: ten thousand in a minute, then none."""
    with both.punched("tcp-simopen") as (a, b):
        port = int(b.local.partition(":")[2])
        if not alive:
            b.socket.close()
            a.socket.close()
            time.sleep(0.05)
        with Talker(both.b.path) as talker:
            answer = talker.ask(_respond(_notification(both, "tcp-simopen", port), timeout_ms=200))
    assert "nothing-heard" == answer["code"]


@pytest.mark.parametrize("port", [22, 80, 1023, 1024, 8080, 20999, 32000, 65535])
def test_port_outside_of_the_punch_range_is_refused(both: Duo, port: int) -> None:
    """Services live there, started or not yet."""
    with Tap(both.lab.b) as tap, Talker(both.b.path) as talker:
        assert "port-refused" == talker.ask(_respond(_notification(both, "tcp-simopen", port)))["code"]
        assert [] == tap.packets()


TARGETS = ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "240.1.2.3", "169.254.7.7", "10.0.2.2", "10.0.2.255",
           "172.16.0.1", "192.168.1.1", "100.64.0.1"]  # fmt: skip


@pytest.mark.parametrize("address", TARGETS)
def test_target_that_is_no_peer_is_refused(both: Duo, address: str) -> None:
    """Neither the caller nor a notification may aim us at this host, this network, or everybody."""
    forged = _notification(both, "tcp-simopen", 25005, initiator=address)
    with Tap(both.lab.b) as tap, Talker(both.b.path) as talker:
        assert "target-refused" == talker.ask(_initiate(both) | {"peer": address})["code"]
        assert "target-refused" == talker.ask(_respond(forged))["code"]
        assert "bad-value" == talker.ask(_initiate(both) | {"self": address})["code"]
        assert [] == tap.packets()


def test_own_address_and_own_broadcast_are_no_targets() -> None:
    """On a host with a public address these look like peers; a notification must not aim us at our own services."""
    with Lab("open", "open", echo=None) as lab, Daemon(lab.b) as daemon, Talker(daemon.path) as talker:
        for address in (lab.public_b, "198.51.100.127"):
            request = {"id": "1", "call": "initiate", "peer": address, "self": lab.public_b}
            assert "target-refused" == talker.ask(request)["code"]


def test_sender_outside_of_from_is_refused(both: Duo) -> None:
    """The application knows whom it talks to; what the notification says is only a claim."""
    with Tap(both.lab.b) as tap, Talker(both.b.path) as talker:
        request = _respond(_notification(both, "udp", 25006)) | {"from": ["192.0.2.0/24"]}
        assert "target-refused" == talker.ask(request)["code"]
        assert [] == tap.packets()


# -- the host's limits -----------------------------------------------------------------------------------------------


def test_taken_ports_are_redrawn_and_named_when_all_are(both: Duo) -> None:
    """A busy port is chance and costs nothing; a busy range is a cause."""
    place = both.lab.a
    holders = []
    try:
        for port in range(LISTEN_PORTS.low, LISTEN_PORTS.high + 1):
            sock = place.socket(socket.AF_INET, socket.SOCK_STREAM)
            holders.append(sock)
            sock.bind(("0.0.0.0", port))
        with Talker(both.a.path) as talker:
            answer = talker.ask(_initiate(both) | {"techniques": ["tcp-nutss"]})
            assert "port-taken" == answer["code"]
            assert "notification" in _first(talker, _initiate(both, id="2"))
    finally:
        for sock in holders:
            sock.close()


def test_no_descriptor_left_is_a_cause_and_passes(both: Duo) -> None:
    """Out of descriptors: who asks is told, who waits goes on, and what ends makes room."""
    with Daemon(both.lab.a, files=48) as daemon, Talker(daemon.path) as talker, Talker(daemon.path) as other:
        assert "ok" == other.ask({"id": "1", "call": "ping"})["status"]
        number = 0
        while "notification" in (answer := _first(talker, _initiate(both, id=f"{(number := number + 1)}"))):
            assert number < 100
        assert "out-of-descriptors" == answer["code"]
        assert "ok" == other.ask({"id": "2", "call": "ping"})["status"]
        assert number - 1 == other.ask({"id": "3", "call": "status"})["open"]
        with Talker(daemon.path) as late:
            late.say({"id": "1", "call": "ping"})
            talker.close()
            assert "ok" == late.hear()["status"]
            assert "notification" in _first(late, _initiate(both, id="2"))


# -- tcp-syni's number -----------------------------------------------------------------------------------------------


def test_number_in_the_notification_is_the_one_on_the_wire(both: Duo) -> None:
    """SYN injection stands on it; an independent capture is the judge."""
    with Tap(both.lab.a) as tap, client.connect_blocking(both.a.path) as daemon:
        attempt = daemon.initiate(peer=both.lab.public_b, self_=both.lab.public_a, techniques=["tcp-syni"])
        (offer,) = decode_notification(attempt.notification()).offers
        (seen,) = [packet for packet in tap.packets() if packet.sport == offer.initiator_port]
    assert offer.syn is not None
    assert (offer.responder_port, offer.syn.seq) == (seen.dport, seen.seq)


def test_syn_that_was_not_captured_ends_syni_by_name(both: Duo) -> None:
    """The number comes from the ring, and from nowhere else: without it there is no attempt."""
    with Daemon(both.lab.a, command=[*BENT, "deaf"]) as daemon, Talker(daemon.path) as talker:
        answer = talker.ask(_initiate(both) | {"techniques": ["tcp-syni"]})
    assert "syn-not-captured" == answer["code"]


def _heard_by_nobody(path: str) -> str:
    """All that a process of another user reads there, or the name of its errno."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            _hear_as_nobody(path, writing)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as heard_there:
        said = heard_there.read()
    os.waitpid(child, 0)
    return said


def _hear_as_nobody(path: str, told: int) -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        failure = sock.connect_ex(path)
        if failure:
            os.write(told, errno.errorcode[failure].encode())
            return
        while heard := sock.recv(4096):
            os.write(told, heard)


def _initiate(both: Duo, *, id: str = "i", timeout_ms: int = 5000) -> dict[str, Any]:
    return {
        "id": id, "call": "initiate", "peer": both.lab.public_b, "self": both.lab.public_a,
        "techniques": ["tcp-simopen"], "timeout_ms": timeout_ms,
    }  # fmt: skip


def _respond(notification: str, *, id: str = "r", timeout_ms: int = 5000) -> dict[str, Any]:
    return {"id": id, "call": "respond", "notification": notification, "timeout_ms": timeout_ms}


def _notification(
    both: Duo, technique: str, port: int, *, initiator: str | None = None, secret: bytes | None = None
) -> str:
    """As a punchd at A would write it that never drew a port."""
    offer = Offer(technique, 26000, port, SYN if technique == "tcp-syni" else None)
    notification = Notification(
        os.urandom(NONCE_LEN), initiator or both.lab.public_a, both.lab.public_b, technique.partition("-")[0], (offer,)
    )
    return encode_notification(notification, secret)


def _first(talker: Talker, request: dict[str, Any]) -> dict[str, Any]:
    talker.say(request)
    return talker.hear()


def _wait_for_open(daemon: Daemon, count: int) -> None:
    deadline = time.monotonic() + 5
    with Talker(daemon.path) as talker:
        while (found := talker.ask({"id": "s", "call": "status"})["open"]) != count:
            assert time.monotonic() < deadline, f"{found} attempts are open, not {count}"
            time.sleep(0.01)
