"""What tests of several folders share: the real vLLM, and how they are spread over two workers."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.vllm_cpu import Unavailable, running_vllm

STORIES = Path(__file__).parent / "story"
ALONE = ("jobs/test_throughput.py",)
"""Stories that compare how long things take."""


def pytest_configure() -> None:
    for name in ("COLUMNS", "LINES"):  # a worker of xdist is told the terminal's; tests say what they need
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` has two workers (`-n 2 --dist loadgroup`): one tells the stories, which wait more than they compute,
    the other does everything else. Last come those that want the machine to themselves: the other is done by then."""
    items.sort(key=_wants_quiet)  # stable
    for item in items:
        is_story = _wants_quiet(item) or STORIES in item.path.parents
        item.add_marker(pytest.mark.xdist_group("stories" if is_story else "rest"))


def _wants_quiet(item: pytest.Item) -> bool:
    is_alone = item.path.is_relative_to(STORIES) and item.path.relative_to(STORIES).as_posix() in ALONE
    return is_alone or item.get_closest_marker("real_vllm") is not None


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
