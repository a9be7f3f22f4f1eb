"""What tests of several folders share: the real vLLM, and how they are spread over two workers."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator

import pytest

from deploy.demo.vllm_cpu import Unavailable, running_vllm

COMPARES_TIMES = "tests/story/jobs/test_throughput.py"


def pytest_configure() -> None:
    for name in ("COLUMNS", "LINES"):  # a worker of xdist is told the terminal's; tests say what they need
        os.environ.pop(name, None)


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` has two workers (`-n 2 --dist loadgroup`), and a file is one worker's. What wants the machine for
    itself comes last, on one of them: the real vLLM, which is started once, and what compares times."""
    items.sort(key=_wants_quiet)  # stable
    for item in items:
        group = "quiet" if _wants_quiet(item) else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


def _wants_quiet(item: pytest.Item) -> bool:
    return item.nodeid.startswith(COMPARES_TIMES) or item.get_closest_marker("real_vllm") is not None


@pytest.fixture(scope="session")
def vllm() -> Iterator[str]:
    """Base URL of a real vLLM server with the model `smollm2`, on the CPU.

    Where vLLM's CPU build exists, a server that can't be had is a failure: these tests are promises.
    """
    try:
        with running_vllm() as url:
            yield url
    except Unavailable as reason:
        if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64"):
            raise
        pytest.skip(str(reason))
