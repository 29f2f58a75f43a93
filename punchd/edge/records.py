"""What the ring tells, read out of C's records.
Calls no C and asks nobody: csrc/punchd.h says where each field lies, and a test compares them."""

from __future__ import annotations

import socket
import struct
from operator import itemgetter
from typing import Any, NamedTuple

KIND_ICMP = 2  # PUNCHD_RECORD_ICMP
NO_SCALE = 255  # PUNCHD_NO_WINDOW_SCALE
_BYTES_MAX = 120  # PUNCHD_SEGMENT_MAX


class Seen(NamedTuple):
    """A segment of a known flow, as the ring saw it (a tuple, for these are made by the thousand).

    other_port: the remote port it came from where that is not the flow's; else 0. All after `time_ns` is the event.
    """

    token: int
    other_port: int
    payload_len: int
    time_ns: int
    outgoing: bool
    flags: int
    seq: int
    ack: int
    window: int
    ttl: int
    raw: bytes
    mss: int | None
    window_scale: int | None
    sack_permitted: bool
    timestamp: int | None
    local_port: int
    remote_port: int


class SeenIcmp(NamedTuple):
    """An ICMP error that quotes a packet of a known flow: any but time-exceeded, which the flow table notes."""

    token: int
    type: int
    code: int
    sender: str
    ttl: int
    time_ns: int


def read_record(records: Any, index: int) -> Seen | SeenIcmp:
    at = index * RECORD_LEN
    fields = _RECORD.unpack_from(records, at)
    token, time_ns, kind, outgoing, bytes_len = fields[:5]
    if kind == KIND_ICMP:
        sender, icmp_type, code, error_ttl = _QUOTE.unpack_from(records, at + _RECORD.size)
        return SeenIcmp(token, icmp_type, code, socket.inet_ntoa(sender), error_ttl, time_ns)
    options = fields[14:]
    if options != _NO_OPTIONS:
        ts_val, _, mss, scale, sack_permitted, timestamps = options
        said = mss or None, None if scale == NO_SCALE else scale, sack_permitted, ts_val if timestamps else None
    else:
        said = _SAYS_NOTHING
    raw, ends = records[at + _BYTES : at + _BYTES + bytes_len], (_SOURCE_FIRST if outgoing else _TARGET_FIRST)(fields)
    return Seen._make((*_HEAD(fields), raw, *said, *ends))


# struct punchd_record by one call for all fields, of which cffi would take as long for each
_RECORD, _QUOTE = struct.Struct("@QQB?HH2x 32xIIHHHHxBBx IIHB?B3x"), struct.Struct("@4s12x 40xBBxB")
_HEAD = itemgetter(0, 5, 11, 1, 3, 13, 6, 7, 10, 12)  # of Seen, up to its ttl
_SOURCE_FIRST, _TARGET_FIRST = itemgetter(8, 9), itemgetter(9, 8)
_NO_OPTIONS, _SAYS_NOTHING = (0, 0, 0, NO_SCALE, False, 0), (None, None, False, None)
_BYTES = _RECORD.size + _QUOTE.size
RECORD_LEN = _BYTES + _BYTES_MAX
