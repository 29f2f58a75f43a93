"""Claims about firewall.py: what a listing of nft, or of iptables, does with a packet.
It refuses to run nft; tests/lab/test_doctor.py asks the kernel whether the listing was understood."""

from __future__ import annotations

import pytest

from punchd.firewall import Chain, Drop, Packet, Rule, dropped, parse, parse_translated

SYN_OUT = Packet(what="SYNs out", going="out", flags=frozenset({"syn"}))
SYN_IN = Packet(what="SYNs in", going="in", flags=frozenset({"syn"}))
ANSWER_IN = Packet(what="SYN-ACKs in", going="in", flags=frozenset({"syn", "ack"}), state="established")
INVALID_IN = Packet(what="INVALID in", going="in", flags=frozenset({"ack"}), state="invalid")
DATAGRAM_OUT = Packet(what="datagrams out", going="out", protocol="udp")

LAPTOP = """
table inet filter { # handle 1
	chain input { # handle 1
		type filter hook input priority filter; policy drop;
		ct state vmap { invalid : drop, established : accept, related : accept } # handle 6
		iifname "lo" accept # handle 7
		tcp dport { 22, 80-90 } accept comment "a # b { c" # handle 9
		meta l4proto { icmp, ipv6-icmp } accept # handle 10
	}

	chain forward { # handle 2
		type filter hook forward priority filter; policy drop;
	}
}
"""


def fate(rules: str, packet: Packet, *, hook: str = "", policy: str = "accept") -> str | None:
    """The text of the rule that drops the packet; with a question mark where that is not sure."""
    place = hook or {"in": "input", "out": "output"}[packet.going]
    lines = "\n".join(f"\t\t{rule} # handle {number}" for number, rule in enumerate(rules.splitlines(), 2))
    sub = "\tchain sub { # handle 90\n\t\tip protocol tcp return # handle 91\n\t\tdrop # handle 92\n\t}\n"
    listing = (
        f"table inet t {{ # handle 1\n\tchain c {{ # handle 1\n"
        f"\t\ttype filter hook {place} priority filter; policy {policy};\n{lines}\n\t}}\n{sub}}}\n"
    )
    drop = dropped(parse(listing), packet)
    return None if drop is None else drop.rule.text + ("" if drop.sure else " ?")


@pytest.mark.parametrize(
    ("packet", "rule"),
    [
        (SYN_OUT, None),
        (ANSWER_IN, None),
        (SYN_IN, "policy drop"),
        (INVALID_IN, "ct state vmap { invalid : drop, established : accept, related : accept }"),
    ],
)
def test_an_ordinary_laptop_lets_answers_in_and_nothing_else(packet: Packet, rule: str | None) -> None:
    """The commonest rules there are: they stand in the way of tcp-direct alone."""
    drop = dropped(parse(LAPTOP), packet)
    assert rule == (drop.rule.text if drop else None)
    assert drop is None or drop.sure


@pytest.mark.parametrize(
    ("rules", "packet", "expected"),
    [
        ("tcp flags syn / fin,syn,rst,ack counter packets 0 bytes 0 drop", SYN_OUT,
         "tcp flags syn / fin,syn,rst,ack counter packets 0 bytes 0 drop"),
        ("tcp flags syn / fin,syn,rst,ack drop", ANSWER_IN, None),
        ("tcp flags != syn,ack / syn,ack drop", SYN_IN, "tcp flags != syn,ack / syn,ack drop"),
        ("tcp flags { syn | ack, syn } drop", ANSWER_IN, "tcp flags { syn | ack, syn } drop"),
        ("tcp flags syn drop", DATAGRAM_OUT, None),
        ("tcp dport 22 drop", SYN_OUT, None),
        ("tcp dport 20000-40000 drop", SYN_OUT, "tcp dport 20000-40000 drop"),
        ("tcp dport 25000 drop", SYN_IN, "tcp dport 25000 drop ?"),  # one port of the range
        ("tcp sport != 20000-40000 drop", SYN_OUT, None),
        ("th sport 21000-31999 reject with icmp admin-prohibited", DATAGRAM_OUT,
         "th sport 21000-31999 reject with icmp admin-prohibited"),
        ("udp sport { 53, 123 } drop", SYN_OUT, None),
        ("ct state != established drop", SYN_IN, "ct state != established drop"),
        ("ct state established,related accept\ndrop", ANSWER_IN, None),
        ("ip protocol udp drop", SYN_OUT, None),
        ("ip6 saddr ::/0 drop", SYN_IN, None),
        ("icmp type echo-request drop", SYN_IN, None),
        ('iifname "lo" drop', SYN_IN, None),
        ('oifname != "lo" drop', SYN_OUT, 'oifname != "lo" drop'),
        ('iifname "eth0" drop', SYN_IN, 'iifname "eth0" drop ?'),
        ("ip saddr @banned reject", SYN_IN, "ip saddr @banned reject ?"),
        ('log prefix "x drop y" level warn\ncounter packets 1 bytes 60 drop', SYN_IN,
         "counter packets 1 bytes 60 drop"),
        ('xt match "u32" drop', SYN_OUT, 'xt match "u32" drop ?'),
        ("limit rate 5/second accept\ndrop", SYN_IN, "drop ?"),
        ("jump sub", DATAGRAM_OUT, "drop"),
        ("jump sub", SYN_OUT, None),  # it returns
        ("goto sub\ndrop", SYN_OUT, None),  # it returns, and not to us
        ("ip daddr 10.0.0.0/8 jump sub\naccept", DATAGRAM_OUT, "drop ?"),
        ("tcp dport vmap { 22 : drop, 20000-40000 : accept }\ndrop", SYN_OUT, None),
        ("meta mark set 0x00000001", SYN_OUT, None),
        ("masquerade", SYN_OUT, None),
    ],
)  # fmt: skip
def test_rules_are_read_from_left_to_right(rules: str, packet: Packet, expected: str | None) -> None:
    """Named wrongly, a rule sends its reader to the wrong place; in doubt, the doubt is said."""
    assert expected == fate(rules, packet)


def test_a_policy_drops_what_no_rule_accepts() -> None:
    """It has no handle, and is the commonest drop of all."""
    assert "policy drop" == fate("tcp dport 443 accept", SYN_OUT, policy="drop")
    assert "policy drop ?" == fate('oifname "eth0" accept', SYN_OUT, policy="drop")
    assert fate("tcp sport 21000-31999 accept", SYN_OUT, policy="drop") is None


@pytest.mark.parametrize("hook", ["ingress", "prerouting", "input"])
def test_each_hook_on_the_way_in_counts(hook: str) -> None:
    """Rules may stand before and behind routing."""
    assert "drop" == fate("drop", SYN_IN, hook=hook)
    assert fate("drop", SYN_OUT, hook=hook) is None


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("ip daddr 198.51.100.0/24 drop", "ip daddr 198.51.100.0/24 drop"),
        ("ip daddr { 192.0.2.1, 198.51.100.2-198.51.100.9 } drop",
         "ip daddr { 192.0.2.1, 198.51.100.2-198.51.100.9 } drop"),
        ("ip saddr != 10.0.1.2 drop", None),
        ("ip daddr 203.0.113.1 drop", None),
    ],
)  # fmt: skip
def test_with_addresses_rules_on_addresses_are_certain(rule: str, expected: str | None) -> None:
    """An attempt that failed knows its own addresses; a host looked over beforehand does not."""
    known = Packet(
        what="", going="out", flags=frozenset({"syn"}), local="10.0.1.2", remote="198.51.100.2",
        local_ports=(22001, 22001), remote_ports=(23001, 23001),
    )  # fmt: skip
    assert expected == fate(rule, known)


def test_punchds_own_tables_are_left_out() -> None:
    """They drop what belongs to no socket; the doctor would send its reader after us."""
    listing = (
        "table ip punchd-77 { # handle 1\n\tflags owner\n\tchain out { # handle 2\n"
        "\t\ttype filter hook output priority mangle; policy drop;\n\t}\n}\n"
    )
    ruleset = parse(listing)
    assert dropped(ruleset, SYN_OUT) is None
    assert ("ip punchd-77",) == ruleset.tables


def test_iptables_rules_are_read_as_translated() -> None:
    """What no translation exists for is in doubt."""
    ruleset = parse_translated(
        "add table ip filter\n"
        "add chain ip filter INPUT { type filter hook input priority 0; policy accept; }\n"
        "add chain ip filter mine\n"
        "add rule ip filter INPUT ct state invalid counter drop\n"
        "# -t filter -A INPUT -m u32 --u32 0=0 -j DROP \n"
        "add rule ip filter INPUT counter jump mine\n"
        "add rule ip filter mine tcp flags syn / fin,syn,rst,ack counter drop\n",
        "iptables-legacy",
    )
    invalid, syn = dropped(ruleset, INVALID_IN), dropped(ruleset, SYN_IN)
    assert invalid is not None
    assert "table ip filter, chain INPUT: ct state invalid counter drop" == str(invalid.rule)
    assert syn is not None
    assert ("mine", True) == (syn.rule.chain, syn.sure)
    doubt = dropped(ruleset, ANSWER_IN)
    assert doubt is not None
    assert ("untranslated -t filter -A INPUT -m u32 --u32 0=0 -j DROP drop", False) == (doubt.rule.text, doubt.sure)
    assert ruleset.tracks


def test_mends_are_no_wider_than_the_packet() -> None:
    """The line is meant to be copied: it opens the punch range to this kind of packet alone."""
    rule = Rule("inet filter", "input", "drop", 7)
    drop = Drop(rule, Chain("inet filter", "input", "input"), sure=True)
    assert "nft insert rule inet filter input tcp dport 21000-31999 ct state established accept" == drop.mend(ANSWER_IN)
    legacy = Drop(rule, Chain("ip mangle", "OUTPUT", "output"), sure=True)
    wanted = "iptables-legacy -t mangle -I OUTPUT -p tcp --sport 21000:31999 -j ACCEPT"
    assert wanted == legacy.mend(SYN_OUT, "iptables-legacy")
