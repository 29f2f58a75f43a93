"""punchd's firewall rules: one nftables table, owned by this process, the same for all attempts.
Changes nothing per attempt and touches no table but its own.

The table, as `nft list ruleset` would show it (it is made through netlink, so no nft program is needed):

    table ip punchd-<pid> { flags owner
      set closed { type ipv4_addr . inet_service . inet_service; size 65535; flags dynamic,timeout; timeout 5m }
      chain out { type filter hook output priority -150; policy accept
        tcp sport 21000-31999 tcp flags & fin != 0  update @closed { ip daddr . tcp dport . tcp sport }
        tcp sport 21000-31999 tcp flags & (rst | ack) == rst  meta skuid >= 0 accept
        tcp sport 21000-31999 tcp flags & (rst | ack) == rst  ip daddr . tcp dport . tcp sport @closed accept
        tcp sport 21000-31999 tcp flags & (rst | ack) == rst  counter drop
      }
      chain in { type filter hook input priority -150; policy accept
        tcp dport 21000-31999 tcp flags & (fin | syn | rst | ack) == syn tcp window 20550 drop
        icmp type time-exceeded @th,64,8 0x45 @th,136,8 tcp @th,224,16 21000-31999 @th,328,24 0x105050 drop
        icmp type time-exceeded @th,224,16 21000-31999 queue num N bypass
      }
    }

Why `out`: a peer's segment may arrive before there is a socket for it, and our own kernel would answer with a RST
that kills the peer's. Such a RST belongs to no socket, hence has no owner (`meta skuid` finds none): it is dropped.
It answers an ACK, so it bears no ACK itself (tcp_ipv4.c, tcp_v4_send_reset); the refusal of a SYN does, and passes:
a closed port of the range is refused as ever. The application's own resets have an owner and pass. After the
application has closed, the kernel's RST to a peer that still sends must pass: the FIN on its way out has put the
connection into @closed.
Why `in`, its SYNs: those with this window are another punchd's, sent without a socket and meant for the ring, which
sees them before (core/fan.py). Our kernel's refusal would end the mappings that they have just opened.
Why `in`, its errors: a primer's time-exceeded would kill a socket in SYN_SENT. Only those that quote a punch port are
asked about at all; edge/nfqueue.py decides each by its 4-tuple. Without a listener, bypass lets them pass.
Those that quote a bare ACK with the window of PRIME (20560, 0x5050) are a primer's, and die without a question:
were it by chance an application's segment, its kernel would do nothing about the error either (tcp_ipv4.c, tcp_v4_err:
a time-exceeded is no more than a hint to a connection). A router that quotes less than the window is asked about.

The kernel removes a table with the owner flag when the netlink socket that made it closes, by kill -9 too
(NFT_TABLE_F_OWNER, Linux 5.12; nf_tables_api.c, nft_rcv_nl_event).
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWTABLE,
    NFTSocket,
    nft_chain_msg,
    nft_rule_msg,
    nft_set_msg,
    nft_table_msg,
)

from punchd.words.addresses import PortRange
from punchd.words.events import WINDOWS, Signal

_OWNER = 0x2  # NFT_TABLE_F_OWNER
_MANGLE = -150  # NF_IP_PRI_MANGLE: after conntrack, before any filter
_HOOK_INPUT, _HOOK_OUTPUT = 1, 3  # NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT
_DROP, _ACCEPT = 0, 1  # NF_DROP, NF_ACCEPT
_NET, _TRANSPORT = 1, 2  # NFT_PAYLOAD_*_HEADER
_REG = 8  # NFT_REG32_00; the next two follow it
_META_L4PROTO, _META_SKUID = 16, 10
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_EQUAL, _AT_LEAST = 0, 5  # NFT_CMP_EQ, NFT_CMP_GTE
_TUPLE_TYPE = (7 << 12) | (13 << 6) | 13  # nft's name for ipv4_addr . inet_service . inet_service
_CLOSED = {
    "key_type": _TUPLE_TYPE,
    "key_len": 12,
    "id": 1,
    "timeout": 300_000,  # ms: a peer that still sends after our FIN does so within the FIN-WAIT timers
    "flags": {"NFT_SET_TIMEOUT", "NFT_SET_EVAL"},
    "desc": {"attrs": [("NFTA_SET_DESC_SIZE", 65535)]},
}
_KINDS = {
    "table": (nft_table_msg, NFT_MSG_NEWTABLE),
    "set": (nft_set_msg, NFT_MSG_NEWSET),
    "chain": (nft_chain_msg, NFT_MSG_NEWCHAIN),
    "rule": (nft_rule_msg, NFT_MSG_NEWRULE),
}
_BEGIN, _END = 0x10, 0x11  # NFNL_MSG_BATCH_*
_ENOENT = 2

_Object = tuple[str, dict[str, Any]]
"""A kind, and its attributes."""


class Rules:
    """The table; it exists from construction until `close` or the end of the process, however that comes.

    Raises OSError: EPERM without CAP_NET_ADMIN, ENOENT or EOPNOTSUPP where the kernel lacks an expression.
    """

    def __init__(self, ports: PortRange, queue: int | None) -> None:
        self.name = f"punchd-{os.getpid()}"
        self._ports = ports
        self.queue_expression: str | None = None
        self._socket: Any = NFTSocket()
        try:
            self._make(queue)
        except NetlinkError as error:
            self._socket.close()
            raise OSError(error.code, f"nftables table {self.name}: {os.strerror(error.code)}") from error

    def close(self) -> None:
        """Remove the table, by closing the socket that owns it."""
        self._socket.close()

    def _make(self, queue: int | None) -> None:
        self._add(self._objects())
        for spelling, expression in _questions(queue).items():
            try:
                self._add([self._rule("in", *self._exceeded(), expression)])
            except NetlinkError as error:
                if error.code != _ENOENT or spelling == "target":
                    raise
            else:
                self.queue_expression = spelling
                return

    def _add(self, objects: list[_Object]) -> None:
        """In one transaction, for each waits until no packet is in the old rules.
        pyroute2's own helpers make one of each object, and can't spell sets of tuples."""
        messages = [_message(kind, attributes) for kind, attributes in objects]
        self._socket.nlm_request_batch([_edge(_BEGIN), *messages, _edge(_END)])

    def _objects(self) -> list[_Object]:
        """All but the question: the table first, and what others name before them."""
        fin = [*self._tcp_from_us(), *_flags(_FIN, _FIN)]
        rst = [*self._tcp_from_us(), *_flags(_RST | _ACK, _RST)]
        crafted = [*self._tcp(2), *_flags(_FIN | _SYN | _RST | _ACK, _SYN), _load(_TRANSPORT, 14, 2)]
        window = struct.pack("!H", WINDOWS[Signal.FIRE])
        primer = struct.pack("!BH", _ACK, WINDOWS[Signal.PRIME])
        quoted = [
            *self._exceeded(),
            _load(_TRANSPORT, 8, 1),
            _compare(b"\x45"),
            _load(_TRANSPORT, 17, 1),
            _compare(b"\x06"),
            _load(_TRANSPORT, 41, 3),
            _compare(primer),
        ]
        return [
            ("table", {"name": self.name, "flags": _OWNER}),
            ("set", {"name": "closed", "table": self.name, **_CLOSED}),
            self._chain("out", _HOOK_OUTPUT),
            self._rule("out", *fin, *_load_tuple(), _expr("dynset", set_name="closed", op=1, sreg_key=_REG)),
            self._rule(
                "out", *rst, _expr("meta", key=_META_SKUID, dreg=_REG), _compare(bytes(4), op=_AT_LEAST),
                _verdict(_ACCEPT),
            ),
            self._rule("out", *rst, *_load_tuple(), _expr("lookup", set="closed", sreg=_REG), _verdict(_ACCEPT)),
            self._rule("out", *rst, _expr("counter"), _verdict(_DROP)),
            self._chain("in", _HOOK_INPUT),
            self._rule("in", *crafted, _compare(window), _verdict(_DROP)),
            self._rule("in", *quoted, _verdict(_DROP)),
        ]  # fmt: skip

    def _chain(self, name: str, hook: int) -> _Object:
        at = {"attrs": [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", _MANGLE)]}
        return "chain", {"name": name, "table": self.name, "type": "filter", "policy": _ACCEPT, "hook": at}

    def _rule(self, chain: str, *expressions: Any) -> _Object:
        return "rule", {"table": self.name, "chain": chain, "expressions": list(expressions)}

    def _exceeded(self) -> list[Any]:
        """ICMP time-exceeded that quotes a packet from a port of our range, if without IP options."""
        return [
            _expr("meta", key=_META_L4PROTO, dreg=_REG),
            _compare(b"\x01"),
            _load(_TRANSPORT, 0, 1),
            _compare(b"\x0b"),
            _load(_TRANSPORT, 28, 2),
            _in_range(self._ports),
        ]

    def _tcp_from_us(self) -> list[Any]:
        return self._tcp(0)

    def _tcp(self, port_at: int) -> list[Any]:
        """TCP with the port that lies there in our range."""
        return [
            _expr("meta", key=_META_L4PROTO, dreg=_REG),
            _compare(b"\x06"),
            _load(_TRANSPORT, port_at, 2),
            _in_range(self._ports),
        ]


def _questions(queue: int | None) -> dict[str, Any]:
    """`queue` where the kernel has it, else the same by xtables' NFQUEUE target (revision 3, padded info)."""
    if queue is None:
        return {}
    return {
        "queue": _expr("queue", num=queue, total=1, flags=1),
        "target": _expr("target", name="NFQUEUE", rev=3, info=struct.pack("=HHH2x", queue, 1, 1)),
    }


def _message(kind: str, attributes: dict[str, Any]) -> Any:
    make, command = _KINDS[kind]
    message = make()
    message["header"]["type"] = NFNL_SUBSYS_NFTABLES << 8 | command
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND
    message["nfgen_family"] = socket.AF_INET
    message["attrs"] = [(make.name2nla(name), value) for name, value in attributes.items()]
    return message


def _edge(kind: int) -> Any:
    message = nfgen_msg()
    message["res_id"] = NFNL_SUBSYS_NFTABLES
    message["header"]["type"], message["header"]["flags"] = kind, NLM_F_REQUEST
    return message


def _expr(kind: str, **attributes: Any) -> dict[str, Any]:
    data = [(f"NFTA_{kind.upper()}_{name.upper()}", value) for name, value in attributes.items()]
    return {"attrs": [("NFTA_EXPR_NAME", kind), ("NFTA_EXPR_DATA", {"attrs": data})]}


def _load(base: int, offset: int, length: int, register: int = _REG) -> dict[str, Any]:
    return _expr("payload", dreg=register, base=base, offset=offset, len=length)


def _load_tuple() -> list[dict[str, Any]]:
    """ip daddr . tcp dport . tcp sport, each in a 32-bit register of its own."""
    return [_load(_NET, 16, 4), _load(_TRANSPORT, 2, 2, _REG + 1), _load(_TRANSPORT, 0, 2, _REG + 2)]


def _value(data: bytes) -> dict[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", data)]}


def _compare(data: bytes, *, op: int = _EQUAL) -> dict[str, Any]:
    return _expr("cmp", sreg=_REG, op=op, data=_value(data))


def _in_range(ports: PortRange) -> dict[str, Any]:
    low, high = struct.pack("!H", ports.low), struct.pack("!H", ports.high)
    return _expr("range", sreg=_REG, op=0, from_data=_value(low), to_data=_value(high))


def _flags(mask: int, value: int) -> list[dict[str, Any]]:
    """TCP flags & mask == value."""
    return [
        _load(_TRANSPORT, 13, 1),
        _expr("bitwise", sreg=_REG, dreg=_REG, len=1, mask=_value(bytes([mask])), xor=_value(b"\0")),
        _compare(bytes([value])),
    ]


def _verdict(code: int) -> dict[str, Any]:
    data = {"attrs": [("NFTA_DATA_VERDICT", {"attrs": [("NFTA_VERDICT_CODE", code)]})]}
    return _expr("immediate", dreg=0, data=data)
