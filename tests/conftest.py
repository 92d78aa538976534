"""Fixtures for all tests, the flags `--soak`, `--board`, `--gpu`, and the rule that CI skips nothing unexpected."""

from __future__ import annotations

import gc
import os
import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# The same examples every time, and no limit for one of them: a busy machine is no defect.
hypothesis.settings.register_profile("edged", deadline=None, derandomize=True)
hypothesis.settings.load_profile("edged")

pytest_plugins = ["broker", "smallmodel"]

NEEDS_FLAG = {
    "soak": "long; runs with --soak only",
    "board": "needs a real board; runs with --board only",
    "gpu": "needs llama.cpp built for a GPU, and one; runs with --gpu only",
}
"""Markers whose tests are skipped without the flag of that name: the only skips that CI expects."""


@pytest.fixture(autouse=True, scope="module")
def _left_open() -> Iterator[None]:
    """A socket or file that was left open: blame the tests that left it, not those that run when it is found."""
    yield
    gc.collect()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add a flag for each kind of test that does not run by default."""
    for marker, reason in NEEDS_FLAG.items():
        parser.addoption(f"--{marker}", action="store_true", help=f"run the tests marked {marker}: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known, and have SIGINT mean something: a shell's background jobs are born without it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for marker, reason in NEEDS_FLAG.items():
        config.addinivalue_line("markers", f"{marker}: {reason}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what lacks its flag; mark what loads the small model, so that `-m "not model"` is quick."""
    for item in items:
        if "small_model" in getattr(item, "fixturenames", ()):
            item.add_marker("model")
        for marker in _lacking(item):
            item.add_marker(pytest.mark.skip(reason=NEEDS_FLAG[marker]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip counts as a failure, unless the test lacks its flag: else a test can vanish unseen."""
    report = yield
    expected = hasattr(report, "wasxfail") or _lacking(item)
    if report.skipped and _in_ci() and not expected:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for whole files that skip themselves while they are collected."""
    report = yield
    if report.skipped and _in_ci():
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {_reason(report)}"
    return report


def _lacking(item: pytest.Item) -> list[str]:
    return [name for name in NEEDS_FLAG if item.get_closest_marker(name) and not item.config.getoption(name)]


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}
