"""Claims about core/probe.py: what it finds behind each kind of NAT, how often it asks, and how it keeps a mapping."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from fakenat import A1, A2, EPOCH_MS, FIRST, HOST, OTHER, PUBLIC, Nat, Servers, Street
from hypothesis import given
from hypothesis import strategies as st

from punchd.core.probe import KEEP_S, SAMPLE_PORTS
from punchd.words.addresses import Endpoint
from punchd.words.events import Cancelled
from punchd.words.nat import Allocation, Dependence
from punchd.words.probing import Answer, Answered, Found, LineEnded, Lost, PortFailed

BOTH = pytest.mark.parametrize("transport", ["tcp", "udp"])
DEPENDENCES = [Dependence.INDEPENDENT, Dependence.ADDRESS, Dependence.ADDRESS_AND_PORT]
ALLOCATIONS = [Allocation.SEQUENTIAL, Allocation.RANDOM]
SILENT = Endpoint("192.0.2.77", 3478)


@BOTH
@pytest.mark.parametrize("mapping", DEPENDENCES)
@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_mapping_and_allocation_are_found_apart(transport: str, mapping: Dependence, allocation: Allocation) -> None:
    """One word for a NAT hides what the plan needs: prediction asks for allocation, retries for mapping."""
    finding = Street(transport, Nat(mapping, allocation=allocation)).run()
    assert finding.face is not None
    assert mapping is finding.face.nat.mapping
    assert allocation is finding.face.nat.allocation


@BOTH
def test_port_keeping_seencosts_no_further_ports(transport: str) -> None:
    """The usual home router: nothing is to be predicted, so nothing is sampled."""
    street = Street(transport)
    face = street.run().face
    assert face is not None
    assert (Dependence.INDEPENDENT, Allocation.PRESERVING) == (face.nat.mapping, face.nat.allocation)
    assert (Endpoint(PUBLIC, face.local_port), ()) == (face.public, face.samples)
    assert {0, 1, 2} >= {ask.slot for _, ask in street.asked}


@BOTH
@pytest.mark.parametrize("filtering", DEPENDENCES)
def test_filtering_is_found(transport: str, filtering: Dependence) -> None:
    """Who is let in decides whether the peer must wait for our packet."""
    face = Street(transport, Nat(filtering=filtering)).run().face
    assert face is not None
    assert filtering is face.nat.filtering


@BOTH
def test_filtering_is_tested_from_ports_that_know_one_end_each(transport: str) -> None:
    """Asking the second address from the punch port opens the way for it: the verdict would be too kind."""
    street = Street(transport)
    street.run()
    assert {(1, FIRST), (2, Endpoint(A2, FIRST.port))} == {
        (ask.slot, ask.server) for _, ask in street.asked if ask.slot
    }
    assert {1, 2} == {ask.slot for _, ask in street.asked if ask.change}


@BOTH
@pytest.mark.parametrize("filtering", DEPENDENCES)
def test_no_named_address_is_made_to_send_strays(transport: str, filtering: Dependence) -> None:
    """A NAT that blocks whoever sends a stray would block the rendezvous, if that is where the server is."""
    street = Street(transport, Nat(filtering=filtering))
    street.run()
    changed = [ask for _, ask in street.asked if ask.change is not None]
    assert changed
    assert {A2} == {source.address for source in map(street.servers.source, changed) if source is not None}


@BOTH
def test_second_address_that_is_named_too_is_made_to_send_no_strays(transport: str) -> None:
    """Filtering is not worth a server that the caller relies on."""
    street = Street(transport, named=(FIRST, OTHER))
    face = street.run().face
    assert face is not None
    assert Dependence.UNKNOWN is face.nat.filtering
    assert [] == [ask for _, ask in street.asked if ask.change is not None]


@BOTH
def test_strays_are_asked_for_after_the_mapping_is_known(transport: str) -> None:
    """From then on a NAT that punishes them may let nothing of the second address in."""
    street = Street(transport, Nat(allocation=Allocation.SEQUENTIAL))
    face = street.run().face
    assert face is not None
    first = min(at for at, ask in street.asked if ask.change is not None)
    rest = {ask.slot for at, ask in street.asked if at >= first and ask.server.address == A2}
    assert {2} == rest
    assert Dependence.INDEPENDENT is face.nat.mapping
    assert Allocation.SEQUENTIAL is face.nat.allocation


@BOTH
def test_seenthat_blocks_who_sends_strays_hides_nothing_but_filtering(transport: str) -> None:
    """The mapping is known by then, and the server that keeps it is heard as before."""
    street = Street(transport, Nat(blocks=True), keep=True)
    face = street.run(until_s=100).face
    assert face is not None
    assert Dependence.INDEPENDENT is face.nat.mapping
    assert face.nat.filtering in (Dependence.ADDRESS_AND_PORT, Dependence.UNKNOWN)
    assert {A2} == street.nat.blocked
    assert not any(isinstance(word, Lost) for word in street.told)


@BOTH
@pytest.mark.parametrize(
    "servers",
    [
        Servers(second=None),
        Servers(changes=False),
        Servers(ends=frozenset({FIRST})),
    ],
    ids=["knows no second address", "ignores change-request", "claims ends that it has not"],
)
def test_filtering_is_unknown_where_the_server_can_not_tell(transport: str, servers: Servers) -> None:
    """A false verdict is what users of such tools complain of most."""
    face = Street(transport, servers=servers).run().face
    assert face is not None
    assert Dependence.UNKNOWN is face.nat.filtering


@pytest.mark.parametrize(
    "stranger", [Endpoint("192.0.2.77", 50000), FIRST, Endpoint(A1, 3478), Endpoint("192.0.2.12", 3479)]
)
def test_call_of_a_stranger_is_no_proof(stranger: Endpoint) -> None:
    """The port listens for a while, and the Internet knocks on all ports; the server's own end is known to the NAT."""
    street = Street("tcp", knocks=stranger)
    face = street.run().face
    assert 1 in street.listening
    assert face is not None
    assert Dependence.ADDRESS_AND_PORT is face.nat.filtering


def test_server_that_ignores_a_wish_over_tcp_is_not_waited_for() -> None:
    """coturn answers the first of two requests that come in one segment, and forgets the second."""
    street = Street("tcp", servers=Servers(changes=False, pipelines=False))
    face = street.run().face
    assert face is not None
    assert Dependence.UNKNOWN is face.nat.filtering
    assert street.now < 101


def test_server_that_neither_calls_nor_says_so_leaves_tcp_filtering_unknown() -> None:
    """Over UDP silence is the NAT's; over TCP the connection stands, and it is the server's."""
    street = Street("tcp")
    street._call = lambda ask, source: None
    face = street.run().face
    assert face is not None
    assert Dependence.UNKNOWN is face.nat.filtering


def test_server_with_one_address_and_two_ports_tells_address_and_port_dependence() -> None:
    """Our own example server on an ordinary host: where ports make a difference, that is seen. Filtering is not."""
    ends = frozenset({FIRST, Endpoint(A1, 3479)})
    servers = Servers(ends, second=Endpoint(A1, 3479))
    nat = Nat(Dependence.ADDRESS_AND_PORT, allocation=Allocation.RANDOM)
    face = Street(nat=nat, servers=servers).run().face
    assert face is not None
    assert Dependence.ADDRESS_AND_PORT is face.nat.mapping
    kept = Street(servers=servers).run().face
    assert kept is not None
    assert (Dependence.UNKNOWN, Dependence.UNKNOWN) == (kept.nat.mapping, kept.nat.filtering)


@BOTH
@pytest.mark.parametrize("step", [1, 2, 256, -1, -2])
@pytest.mark.parametrize("mapping", DEPENDENCES)
def test_step_is_found_among_foreign_traffic(transport: str, step: int, mapping: Dependence) -> None:
    """Prediction multiplies it: a wrong step misses for ever."""
    nat = Nat(mapping, allocation=Allocation.SEQUENTIAL, step=step, busy=2)
    face = Street(transport, nat).run().face
    assert face is not None
    assert (Allocation.SEQUENTIAL, step) == (face.nat.allocation, face.nat.step)
    assert SAMPLE_PORTS < len(face.samples)


def test_sequence_that_wraps_is_still_one() -> None:
    """Every counter reaches the end of its range one day."""
    nat = Nat(allocation=Allocation.SEQUENTIAL, counter=65531)
    face = Street(nat=nat).run().face
    assert face is not None
    assert (Allocation.SEQUENTIAL, 1) == (face.nat.allocation, face.nat.step)


def test_answers_that_overtake_one_another_do_not_disorder_the_samples() -> None:
    """A pair leaves within the same millisecond; which answer is first says nothing of the ports."""
    street = Street(nat=Nat(allocation=Allocation.SEQUENTIAL), jitter_s=0.01, seed=3)
    face = street.run().face
    assert face is not None
    ports = [sample.public_port for sample in face.samples]
    assert sorted(ports) == ports


def test_samples_bear_the_time_at_which_their_mapping_was_made() -> None:
    """Foreign traffic is ports per time; the answer's arrival is a round trip too late."""
    street = Street(nat=Nat(allocation=Allocation.SEQUENTIAL), rtt_s=0.3)
    face = street.run().face
    assert face is not None
    sent = {ask.slot: at for at, ask in reversed(street.asked)}
    assert sorted(round(EPOCH_MS + at * 1000) for slot, at in sent.items() if slot not in (1, 2)) == [
        sample.at_ms for sample in face.samples
    ]


@BOTH
def test_silent_server_is_waited_for_shortly_once_another_has_answered(transport: str) -> None:
    """A dead server in a list of five must not make each report take its whole time."""
    street = Street(transport, named=(SILENT, FIRST))
    finding = street.run()
    assert finding.face is not None
    assert [SILENT] == [silence.server for silence in finding.silences]
    assert 3.4 < street.now - 100 < 4.0


def test_udp_request_is_repeated_after_half_a_second_doubling() -> None:
    """RFC 8489, section 6.2.1."""
    street = Street(named=(SILENT,), timeout_s=70)
    finding = street.run(until_s=70)
    times = [at - 100 for at, _ in street.asked]
    assert [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5] == pytest.approx(times)
    assert 1 == len({ask.transaction for _, ask in street.asked})
    assert (None, "no answer to 7 requests") == (finding.face, finding.silences[0].cause)


@BOTH
def test_nothing_is_found_in_time_when_nobody_answers(transport: str) -> None:
    """The caller's timeout holds, and every port is closed."""
    street = Street(transport, named=(SILENT,), timeout_s=2)
    finding = street.run()
    assert 2 == pytest.approx(street.now - 100, abs=0.01)
    assert finding.face is None
    assert street.probe.done
    assert set() == street.open


def test_servers_are_not_asked_all_at_once() -> None:
    """A burst is what routers punish."""
    named = tuple(Endpoint(f"192.0.2.{number}", 3478) for number in range(20, 28))
    street = Street(named=named)
    street.run()
    first = [at for at, _ in street.asked][:8]
    assert 0.07 == pytest.approx(first[-1] - first[0])


@BOTH
def test_probe_asks_a_bounded_number_of_times(transport: str) -> None:
    """Whatever the servers say, a request stays a trickle."""
    named = tuple(Endpoint(f"192.0.2.{number}", 3478) for number in range(20, 28))
    ends = frozenset({*named, *(Endpoint(A2, port) for port in (3478, 3479))})
    nat = Nat(Dependence.ADDRESS_AND_PORT, allocation=Allocation.RANDOM)
    street = Street(transport, nat, Servers(ends), named=named)
    street.run()
    assert max(Counter((ask.slot, ask.server, ask.change) for _, ask in street.asked).values()) <= 3
    assert len(street.asked) <= 60


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.1.1"])
def test_second_address_that_may_not_be_a_target_is_not_asked(address: str) -> None:
    """A lying server must not send us against our own network."""
    street = Street(servers=Servers(second=Endpoint(address, 3479)))
    street.run()
    assert {FIRST} == {ask.server for _, ask in street.asked}


@BOTH
def test_victim_that_a_server_names_is_asked_a_handful_of_times(transport: str) -> None:
    """A lying server can turn us against a third party no further than this."""
    victim = Endpoint("198.51.100.9", 80)
    servers = Servers(ends=frozenset({FIRST}), second=victim)
    street = Street(transport, Nat(allocation=Allocation.RANDOM), servers, timeout_s=600)
    street.run(until_s=600)
    aimed = [ask for _, ask in street.asked if ask.server.address == victim.address]
    assert len(aimed) <= 6
    assert len([line for line in street.dialled if line[1].address == victim.address]) <= 2


def test_second_address_of_a_second_address_is_not_followed() -> None:
    """Servers that point at one another for ever end after one step."""
    street = Street(named=(FIRST, OTHER))
    street.run()
    assert {Endpoint(address, port) for address in (A1, A2) for port in (3478, 3479)} == {
        ask.server for _, ask in street.asked
    }


@pytest.mark.parametrize(
    ("source", "answer", "cause"),
    [
        (FIRST, {"error": 420}, "error 420"),
        (FIRST, {}, "an answer without an address"),
        (OTHER, {"mapped": Endpoint(PUBLIC, 1)}, "answered by 192.0.2.11:3479"),
    ],
)
def test_answers_that_do_not_fit_are_named(source: Endpoint, answer: dict[str, object], cause: str) -> None:
    """Raw data beside the verdict includes what went wrong."""
    street = Street(servers=Servers(ends=frozenset()))
    (_, ask) = street.asked[0]
    street.feed(Answered(0, source, Answer(ask.transaction, **answer)))
    assert [cause] == [silence.cause for silence in street.finding.silences]


def test_answers_to_nobodys_question_are_ignored() -> None:
    """Neither a stranger's guess nor a doubled packet may become an observation."""
    street = Street()
    (_, ask) = street.asked[0]
    lie = Endpoint("203.0.113.66", 6)
    street.feed(Answered(0, FIRST, Answer(b"x" * 12, lie)))
    street.feed(Answered(1, FIRST, Answer(ask.transaction, lie)))
    finding = street.run()
    street.feed(Answered(0, FIRST, Answer(ask.transaction, lie)))
    assert all(seen.public.address == PUBLIC for seen in finding.observations)


def test_no_port_is_a_cause_and_no_wait() -> None:
    """Out of descriptors: the caller hears it at once."""
    street = Street(servers=Servers(ends=frozenset()))
    street.feed(PortFailed(0, "port 22000: Too many open files"))
    assert street.probe.done
    assert "port 22000: Too many open files" == street.finding.silences[0].cause


def test_refused_tcp_connection_is_named() -> None:
    """`connection refused` says more than silence."""
    street = Street("tcp", named=(SILENT,))
    street.feed(LineEnded(0, SILENT, "ECONNREFUSED"))
    assert ["ECONNREFUSED"] == [silence.cause for silence in street.finding.silences]


@BOTH
@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.3), mapping=st.sampled_from(DEPENDENCES))
def test_loss_never_makes_a_wrong_mapping(transport: str, seed: int, loss: float, mapping: Dependence) -> None:
    """Whatever is lost: the truth, or unknown, or the worse of two that were not told apart; never a better one."""
    nat = Nat(mapping, allocation=Allocation.RANDOM, seed=seed)
    street = Street(transport, nat, loss=loss, seed=seed)
    face = street.run().face
    assert set() == street.open
    if face is not None:
        allowed = {mapping, Dependence.UNKNOWN}
        if mapping is Dependence.ADDRESS:
            allowed.add(Dependence.ADDRESS_AND_PORT)
        assert face.nat.mapping in allowed
        assert face.nat.allocation in {Allocation.RANDOM, Allocation.UNKNOWN}


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("rtt_s", [0.02, 0.1, 0.2])
@pytest.mark.parametrize(
    "nat", [(Dependence.INDEPENDENT, Allocation.PRESERVING), (Dependence.ADDRESS_AND_PORT, Allocation.RANDOM)]
)
def test_two_lost_packets_cost_time_and_nothing_of_the_finding(
    transport: str, nat: tuple[Dependence, Allocation], rtt_s: float
) -> None:
    """Whichever two they are: each question goes out three times, and all that within the caller's usual time."""

    def found(*drops: int) -> Street:
        street = Street(transport, Nat(nat[0], allocation=nat[1]), rtt_s=rtt_s, drops=drops)
        street.run()
        return street

    whole = found()
    assert whole.finding.face is not None
    for first, second in combinations(range(len(whole.asked) + 2), 2):
        street = found(first, second)
        assert street.finding.face is not None
        wanted, seen = whole.finding.face.nat, street.finding.face.nat
        assert (wanted.mapping, wanted.allocation) == (seen.mapping, seen.allocation), (first, second)
        assert transport == "tcp" or wanted == seen  # its calls take 2 s, for which time may lack
        assert street.now - whole.now < 2.1  # over UDP 0.5 s and 1 s, over TCP 1 s each


# -- keeping -----------------------------------------------------------------------------------------------------------


@BOTH
def test_kept_mapping_is_refreshed_from_the_same_port_until_cancelled(transport: str) -> None:
    """UDP mappings die after 30 s on many routers."""
    street = Street(transport, keep=True)
    street.run(until_s=100)
    late = [(at, ask) for at, ask in street.asked if at > 105]
    assert 5 <= len(late) <= 7
    assert {(0, FIRST)} == {(ask.slot, ask.server) for _, ask in late}
    assert {0} == street.open
    assert KEEP_S == pytest.approx(late[1][0] - late[0][0], abs=0.1)
    assert 1 == sum(isinstance(word, Found) for word in street.told)
    street.feed(Cancelled(""))
    assert set() == street.open
    assert street.probe.done


@BOTH
def test_symmetric_seenis_no_moving_mapping(transport: str) -> None:
    """Each server sees another port there, whoever answered first: only a server's own view can change."""
    nat = Nat(Dependence.ADDRESS_AND_PORT, allocation=Allocation.RANDOM)
    street = Street(transport, nat, named=(FIRST, OTHER), jitter_s=0.05, keep=True)
    street.run(until_s=100)
    street.servers.ends -= {FIRST}
    street.lines.clear()
    street.run(until_s=200)
    assert 1 == len({told.finding.face and told.finding.face.public for told in street.told if isinstance(told, Found)})


@BOTH
def test_mapping_that_moved_is_told(transport: str) -> None:
    """A router that restarts gives another port: peers must hear of it."""
    street = Street(transport, Nat(allocation=Allocation.RANDOM), keep=True)
    before = street.run(until_s=10).face
    street.nat.made.clear()
    after = street.run(until_s=30).face
    assert before is not None
    assert after is not None
    assert before.public != after.public
    assert Endpoint(PUBLIC, street.nat.made[before.local_port, None]) == after.public
    assert 2 == sum(isinstance(word, Found) for word in street.told)


def test_lost_mapping_is_told_once_and_found_again() -> None:
    """The net comes and goes; the caller hears of both, and other servers are tried meanwhile."""
    street = Street(keep=True)
    street.run(until_s=10)
    ends, street.servers.ends = street.servers.ends, frozenset()
    street.run(until_s=60)
    assert 1 == sum(isinstance(word, Lost) for word in street.told)
    assert 1 < len({ask.server for at, ask in street.asked if at > 110})
    street.servers.ends = ends
    street.run(until_s=90)
    assert 2 == sum(isinstance(word, Found) for word in street.told)


def test_closed_tcp_connection_is_made_again_from_the_same_port() -> None:
    """Servers close idle connections; the mapping is worth another one."""
    street = Street("tcp", keep=True)
    street.run(until_s=10)
    street.lines.discard((0, FIRST))
    street.feed(LineEnded(0, FIRST, "closed by the server"))
    street.run(until_s=20)
    assert (0, FIRST) in street.lines
    assert 1 == sum(isinstance(word, (Found, Lost)) for word in street.told)


def test_host_without_seenis_independent_by_any_server() -> None:
    """Where nothing is translated, one server is enough to say so."""

    class NoNat(Nat):
        def out(self, port: int, to: Endpoint) -> Endpoint:
            return Endpoint(HOST, super().out(port, to).port)

    face = Street(nat=NoNat(), servers=Servers(frozenset({FIRST}), second=None)).run().face
    assert face is not None
    assert Dependence.INDEPENDENT is face.nat.mapping
