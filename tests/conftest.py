"""Hypothesis's profiles, and which tests may be skipped: exactly those that skips.txt lists, with their reasons.
It holds no fixtures: what a test needs, it makes.

`lab` tests need root. `needs("queue", ...)` names capabilities as `ping` does; where this kernel lacks one, the test
is skipped. A skip that is not listed fails the run, so that nothing falls asleep unnoticed; so does, in a run of
everything, a listed one that did not happen. Without root, "needs root" counts as one reason, listed or not.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for _name, _examples in (("dev", 25), ("ci", 300)):
    settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=None,  # this machine may be busy
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

_LIST = Path(__file__).with_name("skips.txt")
_NO_ROOT = "needs root"
_skipped: dict[str, str] = {}
_complaints: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*capabilities): skipped where punchd lacks one of them here")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("lab") and os.geteuid() != 0:
        pytest.skip(_NO_ROOT)
    for mark in item.iter_markers("needs"):
        lacking = {name: reason for name, reason in _missing().items() if name in mark.args}
        if lacking:
            pytest.skip("; ".join(f"this kernel lacks {name}: {reason}" for name, reason in lacking.items()))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Compare with the list."""
    listed = {}
    for line in _LIST.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            test, _, reason = line.partition("  ")
            listed[test] = reason
    for test, reason in _skipped.items():
        without_root = reason.startswith(_NO_ROOT) and os.geteuid() != 0
        if not without_root and listed.get(test) != reason:
            _complaints.append(f"skipped, but not listed: {test}  {reason}")
    if _whole(session):
        _complaints.extend(f"listed, but not skipped: {test}" for test in sorted(listed.keys() - _skipped.keys()))
    if _complaints and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _complaints:
        terminalreporter.section(f"skips differ from {_LIST.name}")
        for complaint in _complaints:
            terminalreporter.line(complaint)


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        # (path, line, "Skipped: why"), see _pytest/reports.py
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped[report.nodeid] = reason.removeprefix("Skipped: ")


def _whole(session: pytest.Session) -> bool:
    """Whether everything was asked for, and was run to its end."""
    config = session.config
    chosen = config.option.keyword or config.option.markexpr or config.option.collectonly or session.shouldstop
    paths = {Path(config.invocation_params.dir, arg).resolve() for arg in config.args}
    everything = {Path(config.rootpath, path).resolve() for path in config.getini("testpaths")}
    return not chosen and not session.shouldfail and paths == everything


@lru_cache(maxsize=1)
def _missing() -> dict[str, str]:
    """What a punchd with every privilege can't do here, asked of one in a network namespace of its own."""
    from running import Daemon

    from punchd import client
    from punchd.lab.topology import Lab

    with Lab("open", "open", echo=None) as lab, Daemon(lab.a) as daemon:
        with client.connect_blocking(daemon.path) as asked:
            return {lack["capability"]: lack["reason"] for lack in asked.ping()["missing"]}
