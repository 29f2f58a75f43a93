"""A flood of time-exceeded errors that quote ports of the punch range, run as a program inside a namespace.
Not a bench: bench/icmp.py starts it and counts what became of them.

    python -m bench._errors SOURCE TARGET PORTS SECONDS
"""

import socket
import struct
import sys
import time

from punchd.edge.native import RawSender

FIRST_PORT = 21000
STRANGER, STRANGERS_PORT = "203.0.113.7", 9
BATCH = 256


def time_exceeded(sender: str, target: str, port: int, protocol: int = socket.IPPROTO_TCP) -> bytes:
    """What a router says to `target` of a packet that left this port of it."""
    ports = struct.pack("!HH", port, STRANGERS_PORT)
    quoted = _header(target, STRANGER, 28, protocol) + ports + struct.pack("!HH", 8, 0)
    icmp = struct.pack("!BBHI", 11, 0, 0, 0) + quoted
    icmp = icmp[:2] + struct.pack("!H", _checksum(icmp)) + icmp[4:]
    return _header(sender, target, 20 + len(icmp), socket.IPPROTO_ICMP) + icmp


def _header(source: str, target: str, total: int, protocol: int) -> bytes:
    """The kernel fills in the checksum of a header that we send (raw(7)); nobody looks at that of a quoted one."""
    return struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, total, 1, 0, 64, protocol, 0, socket.inet_aton(source), socket.inet_aton(target)
    )  # fmt: skip


def _checksum(data: bytes) -> int:
    return 0xFFFF - sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF


def main(source: str, target: str, ports: int, seconds: float) -> None:
    packets = [time_exceeded(source, target, FIRST_PORT + i % ports) for i in range(BATCH)]
    with RawSender() as raw:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            raw.send(packets)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
