"""Endpoint servers for the lab's public server s: a real coturn, and the example of our own.
It refuses to answer for them: what they say is theirs.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from .namespace import Namespace
from .topology import SERVER, Lab

SECOND = "192.0.2.11"
PORTS = (3478, 3479)

_OWN = Path(__file__).parents[2] / "examples" / "endpoint_server.py"
_PATIENCE_S = 10.0


def start_coturn(lab: Lab, *, ports: tuple[int, int] = PORTS) -> tuple[str, ...]:
    """A coturn with two addresses and two ports (RFC 5780); where it is to be asked. It ends with the lab."""
    program = shutil.which("turnserver")
    if program is None:
        raise RuntimeError("there is no turnserver; on Debian: apt install coturn")
    _second_address(lab)
    options = [
        "--stun-only", "--no-tls", "--no-dtls", "--no-cli", "--rfc5780", "--no-software-attribute", "-n",
        "--log-file", "stdout", "--pidfile", "/dev/null", "--db", "/dev/null", "--no-auth",
        "-p", str(ports[0]), "--alt-listening-port", str(ports[1]), "-L", SERVER, "-L", SECOND,
    ]  # fmt: skip
    return _start(lab, [program, *(option for option in options if option not in _absent(program))], ports)


def start_own(lab: Lab, *, ports: tuple[int, int] = PORTS, second: bool = True) -> tuple[str, ...]:
    """examples/endpoint_server.py; where it is to be asked. It ends with the lab."""
    _second_address(lab)
    addresses = (SERVER, SECOND) if second else (SERVER,)
    options = [word for address in addresses for word in ("--address", address)]
    options += ["--port", str(ports[0]), "--other-port", str(ports[1])]
    return _start(lab, [sys.executable, str(_OWN), *options], ports)


def _start(lab: Lab, argv: list[str], ports: tuple[int, int]) -> tuple[str, ...]:
    child = lab.server.popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + _PATIENCE_S
    while not _answers(lab.server, ports):
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{Path(argv[-1]).name} does not answer: {' '.join(argv)}")
        time.sleep(0.05)
    return (f"{SERVER}:{ports[0]}",)


def _answers(server: Namespace, ports: tuple[int, int]) -> bool:
    request = struct.pack("!HHI12s", 1, 0, 0x2112A442, b"are you up ?")
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        for port in ports:
            with server.socket(socket.AF_INET, kind) as probe:
                probe.settimeout(0.5)
                try:
                    probe.connect((SERVER, port))
                    probe.send(request)
                    probe.recv(1500)
                except OSError:
                    return False
    return True


def _second_address(lab: Lab) -> None:
    if SECOND not in lab.server.run(["ip", "-4", "addr", "show", "dev", "eth0"]):
        lab.server.run(["ip", "addr", "add", f"{SECOND}/24", "dev", "eth0"])


def _absent(program: str) -> set[str]:
    """Options that came or went between coturn's versions: Debian's 4.6.1 has RFC 5780 on without being asked."""
    said = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    help_ = said.stdout + said.stderr
    return {option for option in ("--rfc5780", "--no-software-attribute", "--no-cli") if option not in help_}
