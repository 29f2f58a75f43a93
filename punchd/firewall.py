"""What this host's own firewall does with a packet: walks one through the rules as `nft -a list ruleset` prints them.
It refuses to run anything and to change a rule; where it can't tell whether a rule matches, it says "may".

A rule is read from left to right. What is not understood makes its match doubtful: an `accept` in doubt leaves what
follows in doubt, a `drop` in doubt is reported as one that may happen. Named sets, marks and limits stay in doubt.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator

import msgspec
from msgspec.structs import replace

PUNCH_PORTS = (21000, 31999)
HOOKS = {"out": ("output", "postrouting", "egress"), "in": ("ingress", "prerouting", "input")}

_FAMILIES = {"ip", "inet", "netdev"}
_DEPTH_MAX = 16  # nftables' own limit of nested chains (NFT_JUMP_STACK_SIZE)


class Packet(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One that punchd needs to pass. `state` is what this host's connection tracking calls it.

    Without an address, rules on addresses are in doubt. Ports are those that may be in it, first and last.
    """

    what: str
    going: str
    protocol: str = "tcp"
    state: str = "new"
    flags: frozenset[str] = frozenset()
    local: str | None = None
    remote: str | None = None
    local_ports: tuple[int, int] = PUNCH_PORTS
    remote_ports: tuple[int, int] = PUNCH_PORTS

    @property
    def mine(self) -> str:
        """The field of the packet that holds this host's own port."""
        return "sport" if self.going == "out" else "dport"


class Rule(msgspec.Struct, frozen=True, gc=False):
    """One line of a chain; handle 0 is the chain's policy."""

    table: str
    chain: str
    text: str
    handle: int = 0

    def __str__(self) -> str:
        place = f"table {self.table}, chain {self.chain}"
        return f"{place}: {self.text}" + (f" (handle {self.handle})" if self.handle else "")


class Chain(msgspec.Struct, frozen=True, gc=False):
    """`hook` is empty for one that others jump to."""

    table: str
    name: str
    hook: str = ""
    policy: str = "accept"
    rules: tuple[Rule, ...] = ()


class Ruleset(msgspec.Struct, frozen=True, gc=False):
    """All tables; `tool` is the program that would change them."""

    chains: tuple[Chain, ...] = ()
    tables: tuple[str, ...] = ()
    tool: str = "nft"

    @property
    def tracks(self) -> bool:
        """Whether some rule makes this host track connections (nf_conntrack is hooked in by whoever asks for it)."""
        texts = (rule.text for chain in self.chains for rule in chain.rules)
        return any(re.search(r"\b(ct|masquerade|snat|dnat|redirect|conntrack)\b", text) for text in texts)


class Drop(msgspec.Struct, frozen=True, gc=False):
    """The rule that drops a packet, for sure or perhaps, and the base chain in which that happens."""

    rule: Rule
    base: Chain
    sure: bool

    def mend(self, packet: Packet, tool: str = "nft") -> str:
        """The narrowest line that lets this packet of the punch range pass; it goes to the head of the base chain."""
        low, high = PUNCH_PORTS
        stateful = (packet.going == "in" or packet.state == "invalid") and self.base.hook != "ingress"
        if tool != "nft":
            table = self.base.table.split()[1]
            where = f"{tool} -t {table} -I {self.base.name} -p {packet.protocol} --{packet.mine} {low}:{high}"
            return where + (f" -m conntrack --ctstate {packet.state.upper()}" if stateful else "") + " -j ACCEPT"
        where = f"nft insert rule {self.base.table} {self.base.name} {packet.protocol} {packet.mine} {low}-{high}"
        return where + (f" ct state {packet.state}" if stateful else "") + " accept"


def parse(listing: str) -> Ruleset:
    """`nft -a list ruleset`. Tables of punchds are left out: they drop only what no socket owns."""
    chains: list[Chain] = []
    tables: list[str] = []
    chain: Chain | None = None
    for line in map(str.strip, listing.splitlines()):
        if found := re.match(r"table (\w+ \S+) \{", line):
            tables.append(found[1])
        elif found := re.match(r"chain (\S+) \{", line):
            chain = Chain(tables[-1], found[1])
        elif chain is not None and line == "}":
            chains.append(chain)
            chain = None
        elif chain is not None and line:
            chain = _with_line(chain, line)
    kept = [one for one in chains if one.table.split()[0] in _FAMILIES and not is_own(one.table)]
    return Ruleset(tuple(kept), tuple(tables))


def parse_translated(listing: str, tool: str) -> Ruleset:
    """What iptables-restore-translate makes of iptables-save."""
    chains: dict[tuple[str, str], Chain] = {}
    for line in listing.splitlines():
        if found := re.match(r"add chain (\w+ \S+) (\S+)(?: \{ (.*) \})?", line):
            chain = Chain(found[1], found[2])
            chains[found[1], found[2]] = _with_line(chain, found[3]) if found[3] else chain
        elif found := re.match(r"add rule (\w+ \S+) (\S+) (.*)", line):
            chains[found[1], found[2]] = _with_line(chains[found[1], found[2]], found[3])
        elif found := re.match(r"# (-t (\S+) -A (\S+) .* -j (\w+).*)", line):  # it could not translate this one
            key = f"ip {found[2]}", found[3]
            chains[key] = _with_line(chains[key], f"untranslated {found[1].strip()} {found[4].lower()}")
    return Ruleset(tuple(chains.values()), tuple(dict.fromkeys(table for table, _ in chains)), tool)


def is_own(table: str) -> bool:
    """Whether a punchd made this table (edge/rules.py)."""
    return re.fullmatch(r"ip punchd-\d+", table) is not None


def dropped(ruleset: Ruleset, packet: Packet) -> Drop | None:
    """The first rule that drops this packet for sure, else the first that may."""
    perhaps: Drop | None = None
    for hook in HOOKS[packet.going]:
        for base in ruleset.chains:
            if base.hook == hook and (drop := _through(ruleset, base, packet)) is not None:
                if drop.sure:
                    return drop
                perhaps = perhaps or drop
    return perhaps


def _with_line(chain: Chain, line: str) -> Chain:
    text, _, handle = line.partition(" # handle ")
    if found := re.match(r"type \w+ hook (\w+) .*policy (\w+)", text):
        return replace(chain, hook=found[1], policy=found[2])
    return replace(chain, rules=(*chain.rules, Rule(chain.table, chain.name, text, int(handle or 0))))


def _through(ruleset: Ruleset, base: Chain, packet: Packet) -> Drop | None:
    perhaps: Drop | None = None
    doubt = False
    for sure, verdict, rule in _walk(ruleset, base, packet):
        if verdict == "accept":
            if sure:
                return perhaps
            doubt = True
        elif sure:
            return Drop(rule, base, not doubt)
        else:
            perhaps = perhaps or Drop(rule, base, sure=False)
    if base.policy == "drop":
        return Drop(Rule(base.table, base.name, "policy drop"), base, not doubt)
    return perhaps


Step = tuple[bool, str, Rule]


def _walk(ruleset: Ruleset, chain: Chain, packet: Packet, depth: int = 0) -> Iterator[Step]:
    """What a packet meets, in order: for sure or not, `accept` or `drop`, by which rule. A sure one is the last."""
    for rule in chain.rules:
        for variant in _variants(rule.text):
            matches, verdict, target = _read(variant, packet)
            if matches is False or verdict in ("", "continue"):
                continue
            if verdict == "return":
                if matches:
                    return
            elif verdict in ("jump", "goto"):
                inner = [one for one in ruleset.chains if (one.table, one.name) == (chain.table, target)]
                for one in inner if depth < _DEPTH_MAX else []:
                    for sure, end, at in _walk(ruleset, one, packet, depth + 1):
                        yield sure and matches is True, end, at
                        if sure:
                            if matches:
                                return
                            break
                if verdict == "goto" and matches:
                    return
            else:
                yield matches is True, "drop" if verdict in ("drop", "reject") else "accept", rule
                if matches:
                    return


def _variants(text: str) -> list[str]:
    """A verdict map is as many rules as it has elements."""
    found = re.search(r"vmap \{ ([^}]*) \}", text)
    if found is None:
        return [text]
    head, tail = text[: found.start()], text[found.end() :]
    return [f"{head}{element.replace(' : ', ' ', 1)}{tail}" for element in found[1].split(", ")]


def _read(text: str, packet: Packet) -> tuple[bool | None, str, str]:
    """Whether the rule matches (None: in doubt), its verdict, and where it jumps."""
    at, doubt = 0, False
    while at < len(text):
        if found := _VERDICT.match(text, at):
            return None if doubt else True, _ALIASES.get(found[1], found[1]), found[2] or ""
        for pattern, test in _TERMS:
            if found := pattern.match(text, at):
                matches = test(found, packet)
                break
        else:
            found = _ANYTHING.match(text, at)
            assert found is not None
            matches = None
        if matches is False:
            return False, "", ""
        doubt = doubt or matches is None
        at = found.end()
    return None if doubt else True, "", ""


_VALUE = r"(?P<not>!= )?(?P<value>\{ [^}]* \}|\S+)"
_ANYTHING = re.compile(r'("[^"]*"|\S+)\s*')
_VERDICT = re.compile(
    r"(accept|drop|reject|return|continue|queue|masquerade|snat|dnat|redirect|jump|goto)\b(?: (\S+))?", re.ASCII
)
_ALIASES = dict.fromkeys(("queue", "masquerade", "snat", "dnat", "redirect"), "accept")

Test = Callable[[re.Match[str], Packet], bool | None]


def _values(found: re.Match[str]) -> list[str]:
    return [value.strip() for value in found["value"].strip("{} ").split(",")]


def _unless(found: re.Match[str], matches: bool | None) -> bool | None:
    return matches if matches is None or not found["not"] else not matches


def _always(found: re.Match[str], packet: Packet) -> bool | None:
    return True


def _never(found: re.Match[str], packet: Packet) -> bool | None:
    return False


def _state(found: re.Match[str], packet: Packet) -> bool | None:
    return _unless(found, packet.state in _values(found))


def _protocol(found: re.Match[str], packet: Packet) -> bool | None:
    number = {"tcp": "6", "udp": "17"}[packet.protocol]
    return _unless(found, bool({packet.protocol, number} & set(_values(found))))


def _version(found: re.Match[str], packet: Packet) -> bool | None:
    return _unless(found, bool({"ipv4", "ip"} & set(_values(found))))


def _unicast(found: re.Match[str], packet: Packet) -> bool | None:
    return _unless(found, ("host" in _values(found)) if packet.going == "in" else None)


def _device(found: re.Match[str], packet: Packet) -> bool | None:
    """Punched packets never pass the loopback device; which other one they pass is not known."""
    other_side = (found["way"] == "o") == (packet.going == "in")
    only_loopback = [value.strip('"') for value in _values(found)] == ["lo"]
    return _unless(found, False if only_loopback else None) if not other_side else None


def _ports(found: re.Match[str], packet: Packet) -> bool | None:
    if found["protocol"] not in ("th", packet.protocol):
        return False
    low, high = packet.local_ports if found["side"] == packet.mine else packet.remote_ports
    answers: set[bool | None] = set()
    for value in _values(found):
        ends = value.split("-")
        if not all(end.isdecimal() for end in ends):
            answers.add(None)
        elif int(ends[0]) <= low and high <= int(ends[-1]):
            answers.add(True)
        else:
            answers.add(None if int(ends[0]) <= high and low <= int(ends[-1]) else False)
    return _unless(found, True if True in answers else None if None in answers else False)


def _address(found: re.Match[str], packet: Packet) -> bool | None:
    local_side = "saddr" if packet.going == "out" else "daddr"
    address = packet.local if found["side"] == local_side else packet.remote
    if address is None or "@" in found["value"]:
        return None
    try:
        return _unless(found, any(_within(address, value) for value in _values(found)))
    except ValueError:
        return None


def _within(address: str, value: str) -> bool:
    low, dash, high = value.partition("-")
    if dash:
        return ipaddress.IPv4Address(low) <= ipaddress.IPv4Address(address) <= ipaddress.IPv4Address(high)
    return ipaddress.IPv4Address(address) in ipaddress.IPv4Network(value, strict=False)


def _masked_flags(found: re.Match[str], packet: Packet) -> bool | None:
    mask, value = set(found["mask"].split(",")), set(found["value"].split(","))
    if packet.protocol != "tcp":
        return False
    return _unless(found, packet.flags & mask == value)


def _flags(found: re.Match[str], packet: Packet) -> bool | None:
    """Without a mask: one value means "any of these bits", a set means "exactly one of these"."""
    if packet.protocol != "tcp":
        return False
    if found["not"] or found["value"].startswith("{"):
        return _unless(found, any(packet.flags == set(re.split(r" ?\| ?", value)) for value in _values(found)))
    return bool(packet.flags & set(_values(found)))


def _term(pattern: str, test: Test) -> tuple[re.Pattern[str], Test]:
    return re.compile(pattern + r"(?:\s+|$)", re.ASCII), test


_TERMS = (
    _term(rf"ct state {_VALUE}", _state),
    _term(rf"(?P<protocol>tcp|udp|th) (?P<side>[sd]port) {_VALUE}", _ports),
    _term(r"tcp flags (?P<not>!= )?(?P<value>[\w,]+) / (?P<mask>[\w,]+)", _masked_flags),
    _term(rf"tcp flags {_VALUE}", _flags),
    _term(rf"(?:meta l4proto|ip protocol) {_VALUE}", _protocol),
    _term(rf"meta (?:nfproto|protocol) {_VALUE}", _version),
    _term(rf"(?:meta )?pkttype {_VALUE}", _unicast),
    _term(rf"(?:meta )?(?P<way>[io])if(?:name)? {_VALUE}", _device),
    _term(rf"ip (?P<side>[sd]addr) {_VALUE}", _address),
    _term(r"(?:ip6|icmp|icmpv6|arp|ether type arp|sctp|dccp|esp|ah)\b.*", _never),
    _term(r"counter(?: packets \d+ bytes \d+| name \S+)?", _always),
    _term(r'log(?: (?:prefix "[^"]*"|(?:level|group|snaplen|queue-threshold|flags) \S+))*', _always),
    _term(r'comment "[^"]*"', _always),
    _term(r"notrack", _always),
)
