#!/usr/bin/env python3
"""Proposals: which techniques, in which order, for which kind of network; each is run against the kernel lab.
It refuses to be clever: a proposal is a list, as an application would write it into `techniques`.

    sudo ./dev run python examples/sequences.py           all of them
    sudo ./dev run python examples/sequences.py home      those whose name holds the word

Take the list that fits what you know of your users' networks, or "auto" if you know nothing. An explicit list is
tried strictly in order, each technique for a second before the next one joins; "auto" moves on after a tenth.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from punchd.lab.pair import Pair, Result
from punchd.lab.topology import Lab

DELAY_MS = 25.0  # one way, from host to host; the side channel takes the same


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one knows of the two networks, the list for it, and the kinds of the lab that stand for them."""

    name: str
    techniques: str
    a: str
    b: str


PROPOSALS = (
    # Two ordinary home routers: conntrack, ports kept. simopen needs the least of the hosts and works at once;
    # midstream is there for the router that turns out to drop SYNs.
    Proposal("home routers", "tcp-simopen,tcp-midstream", "linux", "linux"),
    # Routers that answer strays with a RST. The same list: the primer dies before it could be a stray.
    Proposal("home routers with resets", "tcp-simopen,tcp-midstream", "linux-reject", "linux-reject"),
    # No SYN gets in anywhere, as in many offices and mobile networks. Only what sends no bare SYN inwards passes,
    # so don't spend a second on simopen.
    Proposal("both filter SYNs", "tcp-midstream", "linux-synfilter", "linux-synfilter"),
    # The same networks with the habit of the first list: it works, and takes a second longer.
    Proposal("filters nobody knew of", "tcp-simopen,tcp-midstream", "linux-synfilter", "linux-synfilter"),
    # A filters SYNs, B sits behind stateless 1:1 translation, as in clouds. B may answer a SYN that never came, so
    # syni passes: a real handshake, with options and all, where midstream has to assume them.
    Proposal("SYN filter and 1:1 NAT", "tcp-syni,tcp-midstream", "linux-synfilter", "untracked"),
    # Stateless translation on both sides knows no TCP states: everything passes, so take the simplest.
    Proposal("1:1 NAT on both sides", "tcp-simopen", "untracked", "untracked"),
    # A's router checks no sequence numbers (be_liberal): nutss passes too, a round trip later.
    Proposal("be_liberal router", "tcp-nutss,tcp-simopen", "linux-liberal", "linux"),
    # A is reachable, B is not: a plain connection is enough, and needs no privilege on either side.
    Proposal("open host and NAT", "tcp-direct,tcp-simopen", "open", "linux"),
    # The other way round A's listener would sit behind A's NAT: let both connect.
    Proposal("NAT and open host", "tcp-simopen", "linux", "open"),
    # The open host has a stateful firewall: nothing comes in unasked, so direct is out.
    Proposal("firewall and NAT", "tcp-simopen,tcp-midstream", "firewall", "linux"),
    # Datagrams are enough: there is one technique, and it passes all of these.
    Proposal("datagrams", "udp", "linux-synfilter", "linux-reject"),
    # Nothing is known: auto has the order above, and impatience.
    Proposal("unknown, turns out easy", "auto", "linux", "linux"),
    Proposal("unknown, turns out hard", "auto", "linux-synfilter", "linux-synfilter"),
)


def run(proposal: Proposal, runs: int) -> Result:
    """Punch with the proposal between two daemons in a lab of its own."""
    with Lab(proposal.a, proposal.b, delay_ms=DELAY_MS, echo=None) as lab, Pair(lab) as pair:
        return pair.run(proposal.techniques, runs=runs)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run proposals of technique sequences against the kernel lab.")
    parser.add_argument("words", nargs="*", help="only proposals whose name holds all of these")
    parser.add_argument("--runs", type=int, default=3, help="of each proposal")
    options = parser.parse_args()
    chosen = [proposal for proposal in PROPOSALS if all(word in proposal.name for word in options.words)]
    if not chosen:
        parser.error(f"no proposal's name holds {' '.join(options.words)}")
    widths = [max(map(len, column)) for column in zip(_HEAD, *map(_known, chosen), strict=True)]
    print(_line(widths, _HEAD, "ok", "A ms", "B ms", "by"))
    failures = 0
    for proposal in chosen:
        result = run(proposal, options.runs)
        failures += result.ok < result.runs
        medians = (result.summary()[key]["median"] for key in ("time_a_ms", "time_b_ms"))
        times = ("-" if median is None else f"{median:.1f}" for median in medians)
        by = ", ".join(result.winners) or "; ".join(result.messages)
        print(_line(widths, _known(proposal), f"{result.ok}/{result.runs}", *times, by), flush=True)
    print(f"\nms: median, from A's request to each application's socket; {DELAY_MS:g} ms from host to host")
    raise SystemExit(1 if failures else 0)


_HEAD = ("known of the networks", "in the lab", "techniques")


def _known(proposal: Proposal) -> tuple[str, str, str]:
    a, b = proposal.a, proposal.b
    return proposal.name, f"both {a}" if a == b else f"{a} x {b}", proposal.techniques


def _line(widths: list[int], known: tuple[str, str, str], ok: str, a_ms: str, b_ms: str, by: str) -> str:
    cells = (f"{cell:{width}}" for cell, width in zip(known, widths, strict=True))
    return "  ".join([*cells, f"{ok:>3}", f"{a_ms:>6}", f"{b_ms:>6}", by])


if __name__ == "__main__":
    main()
