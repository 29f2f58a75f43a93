"""The C module through its Python wrappers: round trips, every cut, vectors, filters on sockets.
It needs no privilege and no namespace; tests/kernel has what does.
"""

import ast
import os
import random
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from punchd.edge import native
from punchd.edge.native import Flow, Flows, Segment, build, parse, retouch

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
u8, u16, u32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
addresses = st.ip_addresses(v=4).map(str)
made = st.builds(
    Segment,
    src=addresses,
    dst=addresses,
    src_port=u16,
    dst_port=u16,
    seq=u32,
    ack=u32,
    window=u16,
    flags=u8,
    ttl=st.integers(1, 255),
    mss=st.none() | st.integers(1, 65535),
    window_scale=st.none() | st.integers(0, 14),
    sack_permitted=st.booleans(),
    timestamps=st.none() | st.tuples(u32, u32),
)
# A SYN captured from Linux 6.18; its IP checksum is whole, its TCP checksum (ec65) partial.
CAPTURED = bytes.fromhex(
    "4500003c723c40004006dc48c0000201c6336402"
    "a02855f0fa9f7ed100000000a002faf0ec650000"
    "020405b40402080a10e96779000000000103030a"
)
SYN = Segment(
    src="192.0.2.1", dst="198.51.100.2", src_port=41000, dst_port=22000, seq=0xFA9F7ED1, window=64240,
    flags=native.FLAG_SYN, mss=1460, window_scale=10, sack_permitted=True, timestamps=(0x10E96779, 0),
)  # fmt: skip
PLAIN = Segment(src="1.2.3.4", dst="5.6.7.8", src_port=1, dst_port=2, seq=3, flags=native.FLAG_SYN)


def ones_sum(data: bytes) -> int:
    return sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF


def checksums_hold(packet: bytes) -> bool:
    """RFC 1071: over bytes with their checksum in place, the sum is all ones."""
    pseudo = packet[12:20] + struct.pack("!HH", TCP, len(packet) - 20)
    return ones_sum(packet[:20]) == 0 and ones_sum(pseudo + packet[20:]) == 0


def ip(protocol: int, payload: bytes, *, options: bytes = b"", fragment: int = 0, total: int | None = None) -> bytes:
    header_len = 20 + len(options)
    total = header_len + len(payload) if total is None else total
    return (
        struct.pack(
            "!BBHHHBBH4s4s", 0x40 | header_len // 4, 0, total, 1, fragment, 64, protocol, 0,
            socket.inet_aton("203.0.113.9"), socket.inet_aton("192.0.2.1"),
        )
        + options + payload
    )  # fmt: skip


def icmp(quoted: bytes, *, kind: int = 11, code: int = 0, **how: object) -> bytes:
    return ip(1, struct.pack("!BBHI", kind, code, 0, 0) + quoted, **how)


def flows_with(segment: Segment, *, protocol: int = TCP) -> Flows:
    flows = Flows(4)
    flows.put(
        segment.src, segment.src_port, remote=segment.dst, remote_port=segment.dst_port,
        protocol=protocol, token=77,
    )  # fmt: skip
    return flows


def note(flows: Flows, port: int, *, sender: int) -> int:
    """As the ring does it when such an error comes."""
    quote = native.ffi.new("struct punchd_quote *")
    quote.type, quote.family = 11, 4
    quote.sender = socket.inet_aton(f"203.0.113.{sender}").ljust(16, b"\0")
    quote.flow = Flow(("192.0.2.1", port), ("192.0.2.2", 9), protocol=TCP).c[0]
    return int(native.lib.punchd_flows_note(flows.c, quote))


class TestSegments:
    @given(made)
    def test_what_is_built_is_parsed_again(self, segment: Segment) -> None:
        """Builder and parser are one truth: what a peer will read is what was meant."""
        packet = build(segment)
        assert segment == parse(packet)
        assert checksums_hold(packet)
        assert packet[4:6] != b"\0\0"

    def test_a_captured_syn_is_read_as_it_is(self) -> None:
        """syni takes number and options from here; a wrong one costs the connection its window."""
        assert SYN == parse(CAPTURED)

    def test_a_crafted_syn_is_the_kernels_but_for_id_and_checksums(self) -> None:
        """Injected SYNs carry the peer's options in the order in which Linux writes them."""
        crafted = build(SYN)
        for part in (slice(0, 4), slice(6, 10), slice(12, 36), slice(38, None)):
            assert CAPTURED[part] == crafted[part]

    @pytest.mark.parametrize(
        ("change", "options"),
        [
            ({}, ""),
            ({"mss": 1360}, "02040550"),
            ({"sack_permitted": True}, "01010402"),
            ({"timestamps": (1, 2)}, "0101080a0000000100000002"),
            ({"window_scale": 0}, "01030300"),
        ],
    )
    def test_each_option_alone_is_padded_to_four_bytes(self, change: dict[str, object], options: str) -> None:
        """The header's length counts in fours; NOPs stand where Linux puts them."""
        assert options == build(replace(PLAIN, **change))[40:].hex()

    @given(made)
    def test_headers_cut_anywhere_are_refused(self, segment: Segment) -> None:
        """A capture may end anywhere; half a header must never be believed."""
        packet = build(segment)
        for end in range(len(packet)):
            with pytest.raises(ValueError, match="end before"):
                parse(packet[:end])

    @given(made, st.binary(max_size=40))
    def test_payload_is_counted_from_the_ip_header_not_from_the_capture(self, seg: Segment, data: bytes) -> None:
        """The ring keeps headers only; trailers of short Ethernet frames are no payload."""
        packet = bytearray(build(seg))
        headers = len(packet)
        packet[2:4] = struct.pack("!H", headers + len(data))
        assert len(data) == parse(bytes(packet)).payload_len
        assert len(data) == parse(bytes(packet) + data + b"trailer").payload_len

    @given(st.binary(max_size=140))
    def test_any_bytes_are_parsed_or_refused(self, data: bytes) -> None:
        """The parsers are total: the only exception is ValueError."""
        for reader in (parse, lambda raw: retouch(raw, 64)):
            try:
                reader(data)
            except ValueError:
                pass

    @given(made, st.lists(st.tuples(u32, u32, u16, u16), min_size=1, max_size=5))
    def test_a_spray_is_its_segments_built_one_by_one(self, segment: Segment, shots: list[tuple[int, ...]]) -> None:
        """A thousand probes are made from one template; each must be the packet that it would be alone."""
        alone = [
            build(replace(segment, seq=seq, ack=ack, src_port=src_port, dst_port=dst_port))
            for seq, ack, src_port, dst_port in shots
        ]
        out = bytearray(120 * len(shots))
        step = native.spray(segment, native.Shots(shots), out)
        assert alone == [bytes(out[i * step : (i + 1) * step]) for i in range(len(shots))]

    def test_a_spray_into_too_little_room_writes_nothing(self) -> None:
        """The buffer is the caller's: one byte beyond it is somebody else's."""
        out = bytearray(79)
        with pytest.raises(ValueError, match="room"):
            native.spray(PLAIN, native.Shots([(1, 2, 3, 4)] * 2), out)
        assert bytes(79) == bytes(out)

    @given(made, st.integers(0, 119), u8)
    def test_one_altered_byte_never_passes_for_something_unbuildable(self, seg: Segment, at: int, new: int) -> None:
        """What parses without payload can be built again: no field escapes its range."""
        packet = bytearray(build(seg))
        packet[at % len(packet)] = new
        try:
            got = parse(bytes(packet))
        except ValueError:
            return
        if got.payload_len == 0 and got.ttl > 0:
            assert got == parse(build(got))

    @pytest.mark.parametrize(
        ("packet", "why"),
        [
            (b"\x65" + bytes(60), "not of a kind"),  # IPv6
            (b"\x35" + bytes(60), "cannot hold"),  # IPv3
            (b"\x44" + bytes(60), "cannot hold"),  # a header of 16 bytes
            (ip(UDP, bytes(20)), "not of a kind"),
            (ip(TCP, bytes(20), fragment=1), "not of a kind"),
            (ip(TCP, bytes(20), fragment=0x2000), "not of a kind"),
            (ip(TCP, bytes(20), total=39), "cannot hold"),
            (ip(TCP, bytes(20), total=19), "cannot hold"),
            (ip(TCP, bytes(12) + b"\x40" + bytes(7)), "cannot hold"),  # a TCP header of 16 bytes
            (ip(TCP, bytes(12) + b"\x60" + bytes(7)), "cannot hold"),  # of 24, of which 20 are there
            (ip(TCP, bytes(12) + b"\x60" + bytes(7) + b"\x02\x03\0\0"), "cannot hold"),  # MSS of 3 bytes
            (ip(TCP, bytes(12) + b"\x60" + bytes(7) + b"\xfe\x01\0\0"), "cannot hold"),  # an option of 1
            (ip(TCP, bytes(12) + b"\x60" + bytes(7) + b"\xfe\x05\0\0"), "cannot hold"),  # beyond the end
            (ip(TCP, bytes(12) + b"\x60" + bytes(7) + b"\1\1\1\xfe"), "cannot hold"),  # no length at all
        ],
    )
    def test_contradictions_are_refused(self, packet: bytes, why: str) -> None:
        """Strict at the border, so that inside nobody need ask again."""
        with pytest.raises(ValueError, match=why):
            parse(packet)

    def test_unknown_options_and_a_padded_end_are_passed_over(self) -> None:
        """A peer may say more than we know; a scale above 14 counts as 14 (RFC 7323 2.3)."""
        tail = b"\x22\x04\xaa\xbb" + b"\x03\x03\xff" + b"\x00"
        got = parse(ip(TCP, bytes(12) + b"\x70" + bytes(7) + tail))
        assert (14, None, False, None) == (got.window_scale, got.mss, got.sack_permitted, got.timestamps)

    @pytest.mark.parametrize("change", [{"ttl": 0}, {"window_scale": 15}, {"payload_len": 1}])
    def test_what_cannot_be_sent_is_not_built(self, change: dict[str, int]) -> None:
        """A typo in a technique must fail here, not on the wire."""
        with pytest.raises(ValueError, match="segment_build: a field"):
            build(replace(PLAIN, **change))

    def test_addresses_that_are_none_are_refused(self) -> None:
        """inet_aton would take 1.2 for 1.0.0.2."""
        with pytest.raises(OSError, match="illegal IP address"):
            build(Segment(src="1.2", dst="5.6.7.8", src_port=1, dst_port=2, seq=3, flags=2))


class TestRetouch:
    @given(made, st.integers(1, 255), u16)
    def test_the_ttl_is_new_and_the_checksums_are_whole(self, seg: Segment, ttl: int, partial: int) -> None:
        """A captured segment has a partial TCP checksum; re-sent so, nobody takes it."""
        packet = bytearray(build(seg))
        packet[36:38] = struct.pack("!H", partial)
        again = retouch(bytes(packet), ttl)
        assert checksums_hold(again)
        assert ttl == parse(again).ttl
        assert packet[12:36] == again[12:36]

    def test_a_captured_syn_keeps_all_but_its_partial_checksum(self) -> None:
        """The vector: TTL as it was, so the kernel's own IP checksum must come out again."""
        again = retouch(CAPTURED, 64)
        assert not checksums_hold(CAPTURED)
        assert checksums_hold(again)
        assert CAPTURED[:36] == again[:36]
        assert CAPTURED[38:] == again[38:]

    def test_payload_is_refused_and_a_trailer_is_cut(self) -> None:
        """The ring captured no payload, so there is nothing to sum or to send."""
        packet = bytearray(build(SYN))
        assert build(SYN) == retouch(bytes(packet) + bytes(6), 64)
        packet[3] += 1
        with pytest.raises(ValueError, match="segment_retouch: well formed"):
            retouch(bytes(packet), 64)

    def test_ttl_zero_is_refused(self) -> None:
        """No packet leaves with it."""
        with pytest.raises(ValueError, match="segment_retouch"):
            retouch(build(SYN), 0)


class TestFlows:
    def test_a_quoted_packet_finds_its_flow(self) -> None:
        """This is the whole of an NFQUEUE verdict."""
        assert 77 == flows_with(SYN).get_quoted(icmp(build(SYN)[:28]))

    @pytest.mark.parametrize("kind", [3, 11, 12])
    def test_ip_options_outside_and_inside_are_stepped_over(self, kind: int) -> None:
        """A router may answer with options, or quote them."""
        quoted = bytearray(build(SYN)[:28])
        with_options = bytes([0x46]) + bytes(quoted[1:20]) + b"\1\1\1\1" + bytes(quoted[20:])
        packet = icmp(with_options, kind=kind, options=b"\1\1\1\1")
        assert 77 == flows_with(SYN).get_quoted(packet)

    @pytest.mark.parametrize(
        "packet",
        [
            icmp(build(SYN)[:28], kind=8),  # no error
            icmp(build(SYN)[:28], fragment=1),
            icmp(build(SYN)[:28], total=27),
            icmp(ip(1, bytes(8))),  # quotes ICMP
            icmp(ip(TCP, bytes(8), fragment=2)),  # no ports there
            ip(TCP, build(SYN)[:28]),
        ],
    )
    def test_what_is_no_error_about_us_is_nobodys(self, packet: bytes) -> None:
        """Foreign ICMP must pass the queue untouched."""
        assert 0 == flows_with(SYN).get_quoted(packet)

    def test_an_error_cut_anywhere_is_nobodys(self) -> None:
        """A quote of fewer than 8 bytes behind the header breaks RFC 792."""
        flows, packet = flows_with(SYN), icmp(build(SYN)[:28])
        assert [0] * len(packet) == [flows.get_quoted(packet[:end]) for end in range(len(packet))]

    def test_tcp_and_udp_of_one_tuple_are_two_flows(self) -> None:
        """An attempt may use both at once."""
        flows = flows_with(SYN, protocol=UDP)
        assert 0 == flows.get_quoted(icmp(build(SYN)[:28]))
        quoted = bytearray(build(SYN)[:28])
        quoted[9] = UDP
        assert 77 == flows.get_quoted(icmp(bytes(quoted)))

    def test_a_flow_of_any_port_is_one_of_its_own(self) -> None:
        """Dropping the one must not drop the other, and an ICMP error is never about the one without a port."""
        flows = flows_with(SYN)
        flows.put(SYN.src, SYN.src_port, remote=SYN.dst, remote_port=None, protocol=TCP, token=78)
        assert [77, 78, 0] == [
            flows.get(SYN.src, SYN.src_port, remote=SYN.dst, remote_port=port, protocol=TCP)
            for port in (SYN.dst_port, None, 0)
        ]
        assert flows.drop(SYN.src, SYN.src_port, remote=SYN.dst, remote_port=None, protocol=TCP)
        assert 77 == flows.get_quoted(icmp(build(SYN)[:28]))

    @given(st.lists(st.tuples(st.sampled_from("pdg"), st.integers(0, 40), st.integers(1, 2**64 - 1)), max_size=200))
    def test_the_table_behaves_like_a_dict(self, steps: list[tuple[str, int, int]]) -> None:
        """Deleting moves followers back: no gap may hide one of them."""
        flows, model = Flows(16), dict[int, int]()
        for verb, port, token in steps:
            where = {"remote": "198.51.100.2", "remote_port": 9, "protocol": TCP}
            if verb == "p":
                if len(model) == 16 and port not in model:
                    with pytest.raises(ValueError, match="flows_put: no room"):
                        flows.put("192.0.2.1", port, **where, token=token)
                else:
                    flows.put("192.0.2.1", port, **where, token=token)
                    model[port] = token
            elif verb == "d":
                gone = flows.drop("192.0.2.1", port, **where)
                assert (model.pop(port, None) is not None) == gone
            got = flows.get("192.0.2.1", port, **where)
            assert model.get(port, 0) == got
            assert len(model) == len(flows)

    def test_a_spray_takes_its_flows_at_once_but_no_other_attempts(self) -> None:
        """A fan's lanes may cross another attempt's 4-tuple: that one's packets stay that one's."""
        flows, where = Flows(3), {"remote": "192.0.2.2", "protocol": TCP}
        flows.put("192.0.2.1", 5, **where, remote_port=9, token=7)
        shots = native.Shots([(0, 0, 5, 9), (0, 0, 6, 9), (0, 0, 6, 10), (0, 0, 6, 11)])
        assert 2 == flows.put_shots("192.0.2.1", "192.0.2.2", shots, 8), "one is taken, and one finds no room"
        assert [(6, 9), (6, 10)] == shots.lanes(2)
        assert 2 == flows.put_shots("192.0.2.1", "192.0.2.2", shots, 8), "again is the same"
        assert 8 == flows.get("192.0.2.1", 6, **where, remote_port=10)
        flows.drop_shots("192.0.2.1", "192.0.2.2", shots, 8)
        assert (7, 1) == (flows.get("192.0.2.1", 5, **where, remote_port=9), len(flows))

    def test_a_watched_flow_hears_strays_and_is_forgotten_whole(self) -> None:
        """Of two flows on one local port the last hears the strays; the first must not take them away from it."""
        flows, ends = Flows(8), [Flow(("192.0.2.1", 5), ("192.0.2.2", port), protocol=TCP) for port in (9, 10)]
        any_port = {"remote": "192.0.2.2", "remote_port": None, "protocol": TCP}
        for token, flow in enumerate(ends, 7):
            flows.watch(flow, token)
        assert (3, 8) == (len(flows), flows.get("192.0.2.1", 5, **any_port))
        flows.unwatch(ends[0], 7)
        assert (2, 8) == (len(flows), flows.get("192.0.2.1", 5, **any_port))
        flows.unwatch(ends[1], 8)
        assert 0 == len(flows)

    def test_a_full_table_watches_all_of_a_flow_or_nothing(self) -> None:
        """Half of it would stay for ever."""
        flows = Flows(3)
        flows.watch(Flow(("192.0.2.1", 5), ("192.0.2.2", 9), protocol=TCP), 7)
        with pytest.raises(ValueError, match="flows_watch: no room"):
            flows.watch(Flow(("192.0.2.1", 6), ("192.0.2.2", 9), protocol=TCP), 8)
        assert 2 == len(flows)
        flows.watch(Flow(("192.0.2.1", 6), ("192.0.2.2", 9), protocol=UDP), 8)
        assert 3 == len(flows), "datagrams from another port are never looked at"

    def test_the_first_note_of_a_flow_stays_until_it_is_taken_or_the_flow_is_anothers(self) -> None:
        """It goes with its slot when others leave, and a later attempt on the 4-tuple has not earned it."""
        flows, chance = Flows(64), random.Random(2)
        ends = {port: Flow(("192.0.2.1", port), ("192.0.2.2", 9), protocol=TCP) for port in range(1, 30)}
        for port, flow in ends.items():
            flows.watch(flow, port)
            assert 1 == note(flows, port, sender=port)
            assert 1 == note(flows, port, sender=77)
        assert 0 == note(flows, 999, sender=1)
        for port in chance.sample(sorted(ends), 15):
            flows.unwatch(ends.pop(port), port)
        again, *others = ends
        flows.watch(ends[again], 999)
        assert flows.take_note(ends[again]) is None
        assert [(11, 0, f"203.0.113.{port}") for port in others] == [flows.take_note(ends[port]) for port in others]
        assert [None] * len(others) == [flows.take_note(ends[port]) for port in others]

    def test_many_turns_leave_no_trace(self) -> None:
        """No tombstones: the last lookup costs what the first did, and the table is empty."""
        flows, chance = Flows(64), random.Random(1)
        ports = list(range(48))
        for _ in range(200):
            chance.shuffle(ports)
            for port in ports:
                flows.put("192.0.2.1", port, remote="192.0.2.2", remote_port=9, protocol=TCP, token=port + 1)
            chance.shuffle(ports)
            for port in ports:
                assert flows.drop("192.0.2.1", port, remote="192.0.2.2", remote_port=9, protocol=TCP)
        assert 0 == len(flows)

    def test_token_zero_and_other_protocols_are_refused(self) -> None:
        """0 means absent, so it cannot be a token."""
        flows = Flows(1)
        where = {"remote": "192.0.2.2", "remote_port": 9}
        with pytest.raises(ValueError, match="flows_put: a field"):
            flows.put("192.0.2.1", 1, **where, protocol=TCP, token=0)
        with pytest.raises(ValueError, match="flows_put: well formed"):
            flows.put("192.0.2.1", 1, **where, protocol=1, token=1)

    def test_no_table_for_nothing(self) -> None:
        """A capacity of 0 or beyond memory is the caller's mistake."""
        for capacity in (0, 2**32 - 1):
            with pytest.raises(MemoryError, match="flows_new"):
                Flows(capacity)


class TestFilters:
    @pytest.mark.parametrize("length", [8, 9, 10, 11, 12, 15, 16])
    def test_a_tagged_datagram_is_dropped_and_all_others_pass(self, length: int) -> None:
        """Late proofs must not reach the application; nothing else may be lost."""
        tag = os.urandom(length)
        others = [b"", b"x", tag[:-1], bytes(20), b"x" + tag]
        others += [tag[:i] + bytes([tag[i] ^ 1]) + tag[i + 1 :] + b"tail" for i in range(length)]
        with socket.socket(type=socket.SOCK_DGRAM) as near, socket.socket(type=socket.SOCK_DGRAM) as far:
            for sock in (near, far):
                sock.bind(("127.0.0.1", 0))
                sock.setblocking(False)
            near.connect(far.getsockname())
            far.connect(near.getsockname())
            native.attach_tag_filter(near.fileno(), tag)
            for datagram in [tag, *others, tag + b"more"]:
                far.send(datagram)
            assert others == [near.recv(64) for _ in others]
            with pytest.raises(BlockingIOError):
                near.recv(64)
            native.detach_filter(near.fileno())
            far.send(tag)
            assert tag == near.recv(64)

    @pytest.mark.parametrize("length", [0, 7, 17])
    def test_tags_of_other_lengths_are_refused(self, length: int) -> None:
        """A short tag would swallow the application's own datagrams."""
        with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(ValueError, match="filter_tagged"):
            native.attach_tag_filter(sock.fileno(), bytes(length))

    def test_a_udp_socket_with_a_peer_filter_hears_only_that_peer(self) -> None:
        """Connecting would do for UDP, but only after the peer's port is known."""
        with socket.socket(type=socket.SOCK_DGRAM) as near, socket.socket(type=socket.SOCK_DGRAM) as far:
            near.bind(("127.0.0.1", 0))
            near.setblocking(False)
            far.bind(("127.0.0.5", 0))
            native.attach_peer_filter(near.fileno(), "127.0.0.6")
            far.sendto(b"stranger", near.getsockname())
            native.attach_peer_filter(near.fileno(), "127.0.0.5")
            far.sendto(b"peer", near.getsockname())
            assert b"peer" == near.recv(64)

    @given(u16, u16, u8)
    def test_a_ring_filter_is_refused_only_for_an_empty_range(self, lo: int, hi: int, ttl: int) -> None:
        """Every program must be one that the kernel's checker accepts."""
        out = native.ffi.new("struct punchd_insn[]", 64)
        n = native.lib.punchd_filter_ring(lo, hi, ttl, out, 64)
        assert (n > 0) == (lo <= hi)
        if n > 0:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                assert 0 == native.lib.punchd_filter_attach(sock.fileno(), out, n)


class TestErrors:
    def test_a_refused_call_is_named(self) -> None:
        """The first thing a person needs to know is which call it was."""
        with pytest.raises(OSError, match="filter_detach: Bad file descriptor"):
            native.detach_filter(-1)
        with pytest.raises(OSError, match="repair_drop: Bad file descriptor"):
            native.repair_drop(-1)

    def test_the_stub_is_the_module(self) -> None:
        """mypy believes the stub; a name that only one of them has is a lie."""
        stub = ast.parse(Path(native.__file__).parents[1].joinpath("_native.pyi").read_text())
        body = next(node for node in stub.body if isinstance(node, ast.ClassDef)).body
        names = [node.target.id if isinstance(node, ast.AnnAssign) else node.name for node in body]
        assert sorted(names) == sorted(dir(native.lib))
