"""A skip in this folder is a failure: parity that did not run has not been shown."""

from collections.abc import Generator
from typing import Any

import pytest

# Backends, imported by test_witnesses.py where their packages are installed; a helper of test_gguf.py.
collect_ignore = ["witnesses", "llama_cpp.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record",
        action="store_true",
        help="write tests/golden/families and the table of docs/families.md anew",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    return _failed_if_skipped(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    return _failed_if_skipped(report)


def _failed_if_skipped(report: Any) -> Any:
    if report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"parity tests may not skip: {reason}"
    return report
