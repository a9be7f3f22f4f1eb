"""What tests of several folders share: the real vLLM."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

import pytest

from deploy.demo.vllm_cpu import running_vllm
from deploy.demo.vllm_install import Unavailable


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
