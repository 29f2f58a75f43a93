"""The C module as typed Python: segments, flows, the capture ring, raw sending, TCP_REPAIR.
It decides nothing, waits for nothing, and nothing else may import punchd._native.

Every failure is an exception here: OSError with the call's name where the kernel refused,
ValueError where bytes or values could not be what they were given for.
"""

import os
import socket
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Self

import msgspec

from punchd._native import ffi, lib
from punchd.edge.records import Seen, SeenIcmp, read_record

FLAG_FIN = lib.PUNCHD_FIN
FLAG_SYN = lib.PUNCHD_SYN
FLAG_RST = lib.PUNCHD_RST
FLAG_PSH = lib.PUNCHD_PSH
FLAG_ACK = lib.PUNCHD_ACK
WINDOW_FIRE = lib.PUNCHD_WINDOW_FIRE
WINDOW_ANSWER = lib.PUNCHD_WINDOW_ANSWER
WINDOW_COMMIT = lib.PUNCHD_WINDOW_COMMIT
WINDOW_PRIME = lib.PUNCHD_WINDOW_PRIME

_STATUS = {
    lib.PUNCHD_TRUNCATED: "the bytes end before their header says",
    lib.PUNCHD_MALFORMED: "a field holds what it cannot hold",
    lib.PUNCHD_UNSUPPORTED: "well formed, but not of a kind that punchd handles",
    lib.PUNCHD_NO_ROOM: "no room left",
    lib.PUNCHD_ABSENT: "not there",
}
_SEGMENT_MAX = lib.PUNCHD_SEGMENT_MAX
BARE_MAX = 64
_NO_SCALE = lib.PUNCHD_NO_WINDOW_SCALE


def _check(result: int, call: str) -> int:
    if result >= 0:
        return result
    if result in _STATUS:
        raise ValueError(f"{call}: {_STATUS[result]}")
    raise OSError(-result, f"{call}: {os.strerror(-result)}")


@lru_cache(maxsize=4096)
def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET, address)


@lru_cache(maxsize=4096)
def _spelled(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET, packed)


class Segment(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A TCP segment's headers. payload_len is known of parsed ones; built ones carry no payload."""

    src: str
    dst: str
    src_port: int
    dst_port: int
    seq: int
    ack: int = 0
    window: int = 65535
    flags: int
    ttl: int = 64
    payload_len: int = 0
    mss: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    timestamps: tuple[int, int] | None = None


def build(segment: Segment) -> bytes:
    """The segment as it goes on the wire, checksums and all."""
    out = ffi.new("uint8_t[]", _SEGMENT_MAX)
    c = ffi.new("struct punchd_segment *")
    _fill_segment(c, segment)
    return bytes(ffi.buffer(out, _check(lib.punchd_segment_build(c, out, _SEGMENT_MAX), "segment_build")))


class Shots:
    """Ports and numbers of many segments that are alike otherwise: made once, sent as often as wished."""

    __slots__ = ("c",)

    def __init__(self, shots: Sequence[tuple[int, int, int, int]]) -> None:
        """Each is (sequence number, acknowledged, source port, destination port)."""
        self.c: Any = ffi.new("struct punchd_shot[]", shots)

    def __len__(self) -> int:
        return len(self.c)

    def lanes(self, count: int) -> list[tuple[int, int]]:
        """Source and destination ports of the first so many."""
        return [(self.c[i].src_port, self.c[i].dst_port) for i in range(count)]


def spray(segment: Segment, shots: Shots, out: bytearray) -> int:
    """Write the segments into `out` one behind the other; how many bytes each has. Ports and numbers of `segment`
    itself are not looked at."""
    c = ffi.new("struct punchd_segment *")
    _fill_segment(c, segment)
    return _check(lib.punchd_segment_spray(c, shots.c, len(shots), ffi.from_buffer(out), len(out)), "segment_spray")


def parse(data: bytes | bytearray | memoryview) -> Segment:
    """What an IP packet says, if it is a TCP segment whose headers are whole."""
    c = ffi.new("struct punchd_segment *")
    view = ffi.from_buffer(data)
    _check(lib.punchd_segment_parse(view, len(view), c), "segment_parse")
    return Segment(
        src=_address(c.src), dst=_address(c.dst), src_port=c.src_port, dst_port=c.dst_port,
        seq=c.seq, ack=c.ack, window=c.window, flags=c.flags, ttl=c.ttl, payload_len=c.payload_len,
        mss=c.options.mss or None, window_scale=_scale(c.options),
        sack_permitted=bool(c.options.sack_permitted), timestamps=_timestamps(c.options),
    )  # fmt: skip


def retouch(data: bytes | bytearray | memoryview, ttl: int) -> bytes:
    """A captured segment without payload, with this TTL and whole checksums (captured ones are partial)."""
    copy = bytearray(data)
    view = ffi.from_buffer(copy)
    return bytes(copy[: _check(lib.punchd_segment_retouch(view, len(view), ttl), "segment_retouch")])


class Flow:
    """A 4-tuple as C takes it, spelled out once for all that is asked about it."""

    __slots__ = ("c",)

    def __init__(self, local: tuple[str, int], remote: tuple[str, int], *, protocol: int) -> None:
        self.c: Any = ffi.new("struct punchd_flow *")
        _fill_flow(self.c, *local, remote=remote[0], remote_port=remote[1], protocol=protocol)


class Flows:
    """From 4-tuples to nonzero tokens, with a fixed capacity; shared by the ring and the verdicts."""

    __slots__ = ("_flow", "_note", "c", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        table = lib.punchd_flows_new(capacity)
        if table == ffi.NULL:
            raise MemoryError(f"flows_new: no table of {capacity} flows")
        self.c: Any = ffi.gc(table, lib.punchd_flows_free)
        self._flow: Any = ffi.new("struct punchd_flow *")
        self._note: Any = ffi.new("struct punchd_note *")

    def watch(self, flow: Flow, token: int) -> None:
        """Add a flow and, of TCP, its like with any remote port (see put); ValueError when the table is full."""
        _check(lib.punchd_flows_watch(self.c, flow.c, token), "flows_watch")

    def unwatch(self, flow: Flow, token: int) -> None:
        """Forget both again; another token's flow with any port stays."""
        lib.punchd_flows_unwatch(self.c, flow.c, token)

    def take_note(self, flow: Flow) -> tuple[int, int, str] | None:
        """Type, code and sender of the first time-exceeded that the ring noted since the last time, or None."""
        note = self._note
        if lib.punchd_flows_take_note(self.c, flow.c, note) != lib.PUNCHD_OK:
            return None
        return note.type, note.code, _address(note.sender)

    def put(
        self, local: str, local_port: int, *, remote: str, remote_port: int | None, protocol: int, token: int
    ) -> None:
        """Add a flow, or give it another token; ValueError when the table is full.

        With remote_port None it is told of incoming segments that no whole flow knows.
        """
        _fill_flow(self._flow, local, local_port, remote=remote, remote_port=remote_port, protocol=protocol)
        _check(lib.punchd_flows_put(self.c, self._flow, token), "flows_put")

    def drop(self, local: str, local_port: int, *, remote: str, remote_port: int | None, protocol: int) -> bool:
        """Forget a flow; False if it was not there."""
        _fill_flow(self._flow, local, local_port, remote=remote, remote_port=remote_port, protocol=protocol)
        return lib.punchd_flows_drop(self.c, self._flow) == lib.PUNCHD_OK

    def get(self, local: str, local_port: int, *, remote: str, remote_port: int | None, protocol: int) -> int:
        """The token, or 0."""
        _fill_flow(self._flow, local, local_port, remote=remote, remote_port=remote_port, protocol=protocol)
        return lib.punchd_flows_get(self.c, self._flow)

    def put_shots(self, local: str, remote: str, shots: Shots, token: int) -> int:
        """Add a TCP flow per shot, but for those of other tokens, which come last afterwards; how many are ours."""
        _fill_flow(self._flow, local, 0, remote=remote, remote_port=0, protocol=socket.IPPROTO_TCP)
        return int(lib.punchd_flows_put_shots(self.c, self._flow, shots.c, len(shots), token))

    def drop_shots(self, local: str, remote: str, shots: Shots, token: int) -> None:
        """Forget the flows of these shots that have this token."""
        _fill_flow(self._flow, local, 0, remote=remote, remote_port=0, protocol=socket.IPPROTO_TCP)
        lib.punchd_flows_drop_shots(self.c, self._flow, shots.c, len(shots), token)

    def get_quoted(self, packet: bytes | bytearray | memoryview) -> int:
        """The token of the flow that a whole ICMP error packet quotes, or 0."""
        view = ffi.from_buffer(packet)
        return lib.punchd_flows_get_quoted(self.c, view, len(view))

    def __len__(self) -> int:
        return lib.punchd_flows_count(self.c)


_BATCH = 256
RING_FRAMES = 16384
"""4 MiB: with 4096 a flood of own SYNs at 300 000 a second lost some whenever the reader waited for a core."""


class Ring:
    """The capture ring of the whole daemon. Readable while frames wait; drain() empties it.

    `sifts`: foreign segments wake nobody, for the kernel looks at the flows itself. It takes CAP_BPF; without it
    the drain passes them over.
    """

    __slots__ = ("_bytes", "_c", "_flows", "_records", "_rounds", "sifts")

    def __init__(
        self, port_lo: int, port_hi: int, *, hole_ttl: int, flows: Flows, frames: int = RING_FRAMES, sift: bool = True
    ) -> None:
        out = ffi.new("struct punchd_ring **")
        _check(lib.punchd_ring_open(port_lo, port_hi, hole_ttl, frames, out), "ring_open")
        self._c: Any = out[0]
        self._flows = flows
        self.sifts = sift and lib.punchd_ring_sift(self._c, flows.c) == 0
        self._records: Any = ffi.new("struct punchd_record[]", _BATCH)
        self._bytes: Any = ffi.buffer(self._records)
        self._rounds = frames // _BATCH + 1

    def fileno(self) -> int:
        return lib.punchd_ring_fd(self._open())

    def drain(self) -> list[Seen | SeenIcmp]:
        """All that waits, at most about one ring full: under a flood the descriptor stays readable."""
        seen = list[Seen | SeenIcmp]()
        for _ in range(self._rounds):
            n = lib.punchd_ring_drain(self._open(), self._flows.c, self._records, _BATCH)
            if n == 1:
                seen.append(read_record(self._bytes, 0))
            elif n:
                seen += [read_record(self._bytes, i) for i in range(_check(n, "ring_drain"))]
            if n < _BATCH:
                break
        return seen

    def drops(self) -> int:
        """Frames lost since opening because the ring was full."""
        out = ffi.new("uint64_t *")
        _check(lib.punchd_ring_drops(self._open(), out), "ring_drops")
        return int(out[0])

    def detach(self) -> None:
        """Keep no further frame (for a test of a daemon that captures nothing)."""
        _check(lib.punchd_ring_detach(self._open()), "ring_detach")

    def close(self) -> None:
        c, self._c = self._c, ffi.NULL
        lib.punchd_ring_close(c)

    def _open(self) -> Any:
        if self._c == ffi.NULL:
            raise ValueError("the ring is closed")
        return self._c

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


class RawSender:
    """The raw socket that crafted segments leave by. One to an own address is an injection."""

    __slots__ = ("_bare", "_fd")

    def __init__(self) -> None:
        self._fd = _check(lib.punchd_raw_open(), "raw_open")
        self._bare: Any = ffi.new("struct punchd_segment[]", BARE_MAX)

    def fileno(self) -> int:
        return self._fd

    def send(self, segments: Sequence[Segment | bytes]) -> int:
        """Send in order; how many left. Fewer than given means that the next one was refused: send the
        rest to learn why. OSError if the first one was."""
        if self._fd < 0:
            raise ValueError("the sender is closed")
        crafted = [segment for segment in segments if isinstance(segment, Segment)]
        if len(crafted) == len(segments):
            return self._send_crafted(crafted)
        return self._send_raw([build(item) if isinstance(item, Segment) else item for item in segments])

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._fd < 0

    def spray(self, segment: Segment, shots: Shots, count: int | None = None) -> int:
        """Send one segment with each of these ports and numbers, or the first so many; how many left, as for send()."""
        if self._fd < 0:
            raise ValueError("the sender is closed")
        c = ffi.new("struct punchd_segment *")
        _fill_segment(c, segment)
        count = len(shots) if count is None else count
        return _check(lib.punchd_send_spray(self._fd, c, shots.c, count), "send_spray")

    def send_one(self, flow: Flow, *, flags: int, seq: int, ack: int, window: int, ttl: int) -> None:
        """A segment without options, at once. OSError: it was refused."""
        result = lib.punchd_send_bare(self._fd, flow.c, flags, seq, ack, window, ttl)
        if result != 1:
            _check(result, "send_bare")

    def put_bare(self, place: int, flow: Flow, *, flags: int, seq: int, ack: int, window: int, ttl: int) -> None:
        """The same to one of BARE_MAX places; `send_bare` sends it."""
        lib.punchd_segment_bare(self._bare + place, flow.c, flags, seq, ack, window, ttl)

    def send_bare(self, place: int, count: int) -> int:
        """Those of these places, as `send` does; how many left."""
        return _check(lib.punchd_send_segments(self._fd, self._bare + place, count), "send_segments")

    def _send_crafted(self, segments: list[Segment]) -> int:
        structs = ffi.new("struct punchd_segment[]", len(segments))
        for i, segment in enumerate(segments):
            _fill_segment(structs[i], segment)
        return _check(lib.punchd_send_segments(self._fd, structs, len(segments)), "send_segments")

    def _send_raw(self, packets: list[bytes]) -> int:
        stride = max(map(len, packets))
        data = ffi.from_buffer(b"".join(packet.ljust(stride, b"\0") for packet in packets))
        lens = ffi.new("uint16_t[]", [len(packet) for packet in packets])
        result = lib.punchd_send_burst(self._fd, data, len(data), stride, lens, len(packets))
        return _check(result, "send_burst")

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def repair_open(
    ends: Flow, *, snd_nxt: int, rcv_nxt: int, snd_wnd: int = 65535, mss: int = 1360, window_scale: int = 7,
    sack_permitted: bool = True, ttl: int = 0, probe: bool = False,
) -> int:  # fmt: skip
    """An ESTABLISHED socket out of nothing; the descriptor is the caller's. ttl 0 is the kernel's default.

    It is non-blocking and close-on-exec; but for the TTL, no option differs from a fresh socket's.
    """
    c = ffi.new("struct punchd_repair *")
    c.flow = ends.c[0]
    c.snd_nxt = snd_nxt
    c.rcv_nxt = rcv_nxt
    c.snd_wnd = snd_wnd
    c.mss = mss
    c.window_scale = window_scale
    c.sack_permitted = sack_permitted
    c.ttl = ttl
    c.probe = probe
    return _check(lib.punchd_repair_open(c), "repair_open")


def repair_drop(fd: int) -> None:
    """Close a connection without a packet; the descriptor is closed in any case."""
    _check(lib.punchd_repair_drop(fd), "repair_drop")


def repair_probe(fd: int) -> None:
    """Send a window probe at once; the stream stays untouched, and so does SO_REUSEADDR."""
    _check(lib.punchd_repair_probe(fd), "repair_probe")


def attach_peer_filter(fd: int, address: str) -> None:
    """Let the socket take packets of this address alone (before listen: accepted sockets inherit it)."""
    out = ffi.new("struct punchd_insn[]", lib.PUNCHD_FILTER_MAX)
    peer = _packed(address).ljust(16, b"\0")
    n = _check(lib.punchd_filter_peer(peer, 4, out, len(out)), "filter_peer")
    _check(lib.punchd_filter_attach(fd, out, n), "filter_attach")


def attach_reset_filter(fd: int) -> None:
    """Let the TCP socket take no resets."""
    out = ffi.new("struct punchd_insn[]", lib.PUNCHD_FILTER_MAX)
    n = _check(lib.punchd_filter_resets(out, len(out)), "filter_resets")
    _check(lib.punchd_filter_attach(fd, out, n), "filter_attach")


def attach_tag_filter(fd: int, tag: bytes) -> None:
    """Let the UDP socket drop datagrams that begin with this tag, 8 to 16 bytes."""
    out = ffi.new("struct punchd_insn[]", lib.PUNCHD_FILTER_MAX)
    n = _check(lib.punchd_filter_tagged(tag, len(tag), out, len(out)), "filter_tagged")
    _check(lib.punchd_filter_attach(fd, out, n), "filter_attach")


def detach_filter(fd: int) -> None:
    _check(lib.punchd_filter_detach(fd), "filter_detach")


_FLOW = struct.Struct("@16s16sHHBBH")  # struct punchd_flow


def _fill_flow(c: Any, local: str, local_port: int, *, remote: str, remote_port: int | None, protocol: int) -> None:
    ends = _packed(local), _packed(remote), local_port, remote_port or 0
    ffi.memmove(c, _FLOW.pack(*ends, 4, protocol, remote_port is None), _FLOW.size)


def _fill_segment(c: Any, segment: Segment) -> None:
    ffi.memmove(c.src, _packed(segment.src), 4)
    ffi.memmove(c.dst, _packed(segment.dst), 4)
    c.src_port = segment.src_port
    c.dst_port = segment.dst_port
    c.seq = segment.seq
    c.ack = segment.ack
    c.window = segment.window
    c.flags = segment.flags
    c.ttl = segment.ttl
    c.family = 4
    c.payload_len = segment.payload_len
    options = c.options
    options.mss = segment.mss or 0
    options.window_scale = _NO_SCALE if segment.window_scale is None else segment.window_scale
    options.sack_permitted = segment.sack_permitted
    options.timestamps = segment.timestamps is not None
    options.ts_val, options.ts_ecr = segment.timestamps or (0, 0)


def _address(field: Any) -> str:
    return _spelled(bytes(ffi.buffer(field, 4)))


def _scale(options: Any) -> int | None:
    scale: int = options.window_scale
    return None if scale == _NO_SCALE else scale


def _timestamps(options: Any) -> tuple[int, int] | None:
    return (options.ts_val, options.ts_ecr) if options.timestamps else None
