"""An application that only initiates: begins as many attempts as each line on stdin says, and lets them wait.
It carries no notification anywhere; "ok" on stdout means that each of them is out.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from collections import Counter

import msgspec

from bench._client import Reply, Stream

AT_ONCE = 200


def main(path: str, peer: str, own: str, technique: str) -> None:
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.connect(path)
    poll = select.epoll()
    daemon = Stream(unix, poll)
    transport = "udp" if technique == "udp" else "tcp"
    keys = {"call": "initiate", "peer": peer, "self": own, "transport": transport, "techniques": [technique],
            "timeout_ms": 600_000}  # fmt: skip
    tail = json.dumps(keys)[1:]
    begun, ended = 0, Counter[str]()
    decode = msgspec.json.Decoder(Reply).decode
    print("ok", flush=True)
    for line in sys.stdin:
        wanted, out = begun + int(line), begun
        while out < wanted:
            while begun < wanted and begun - out < AT_ONCE:
                daemon.output += f'{{"id":"h{begun}",{tail}\n'.encode()
                begun += 1
            daemon.flush()
            poll.poll()
            for reply in map(decode, daemon.lines()):
                out += bool(reply.notification) or reply.status == "error"
                ended[reply.code] += reply.status == "error"
        print("ok" if not ended.total() else json.dumps(ended), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
