"""Other people behind the same NAT: opens mappings at random times, so many a second, for as long as it runs.

It refuses to receive or to be received: each mapping is one datagram to a place where nobody is.
"""

from __future__ import annotations

import random
import socket
import sys
import time

NOWHERE = "198.18.99.99"
"""The router outside drops what is sent to it."""


def main(per_second: float, seed: int) -> None:
    """Poisson arrivals, as real load is over a second or so; each has a source port of its own."""
    dice = random.Random(seed)
    due = time.monotonic()
    while True:
        due += dice.expovariate(per_second)
        time.sleep(max(0.0, due - time.monotonic()))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", (NOWHERE, dice.randrange(1024, 65536)))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
