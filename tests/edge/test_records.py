"""The bytes of C's records as Python reads them."""

from __future__ import annotations

from punchd.edge import native
from punchd.edge.records import KIND_ICMP, NO_SCALE, RECORD_LEN, Seen, SeenIcmp, read_record
from punchd.words.events import SegmentSeen


def test_a_record_is_read_where_the_compiler_put_it() -> None:
    """All its fields are read by one call, which knows their places by heart."""
    c = native.ffi.new("struct punchd_record[]", 2)
    assert RECORD_LEN == native.ffi.sizeof("struct punchd_record")
    assert (KIND_ICMP, NO_SCALE) == (native.lib.PUNCHD_RECORD_ICMP, native.lib.PUNCHD_NO_WINDOW_SCALE)
    record, view = c[1], native.ffi.buffer(c)
    record.token, record.time_ns, record.kind, record.outgoing = 1 << 40, 1 << 50, 1, 1
    record.bytes_len, record.other_port, record.bytes[0:3] = 3, 4, b"abc"
    segment = record.segment
    segment.seq, segment.ack, segment.src_port, segment.dst_port = 5, 6, 7, 8
    segment.window, segment.payload_len, segment.ttl, segment.flags = 9, 10, 11, 12
    options = segment.options
    options.ts_val, options.ts_ecr, options.mss, options.window_scale = 13, 14, 15, 0
    options.sack_permitted = options.timestamps = 1
    seen = Seen(1 << 40, 4, 10, 1 << 50, True, 12, 5, 6, 9, 11, b"abc", 15, 0, True, 13, 7, 8)
    names = ["segment" if name == "raw" else name for name in Seen._fields[4:]]
    assert list(SegmentSeen.__struct_fields__[1:]) == names
    assert seen == read_record(view, 1)
    record.outgoing, options.mss, options.window_scale, options.timestamps = 0, 0, 255, 0
    came = seen._replace(outgoing=False, mss=None, window_scale=None, timestamp=None, local_port=8, remote_port=7)
    assert came == read_record(view, 1)
    options.ts_val = options.ts_ecr = options.sack_permitted = 0
    assert came._replace(sack_permitted=False) == read_record(view, 1)
    quote = record.quote
    record.kind, quote.type, quote.code, quote.ttl = 2, 3, 13, 60
    quote.sender[0:4] = bytes([192, 0, 2, 9])
    assert SeenIcmp(1 << 40, 3, 13, "192.0.2.9", 60, 1 << 50) == read_record(view, 1)


def test_what_is_a_flag_is_a_bool() -> None:
    """A journal is read strictly."""
    c = native.ffi.new("struct punchd_record[]", 1)
    c[0].kind, c[0].outgoing, c[0].segment.options.sack_permitted = 1, 1, 1
    seen = read_record(native.ffi.buffer(c), 0)
    assert isinstance(seen, Seen)
    assert seen.outgoing is True
    assert seen.sack_permitted is True
