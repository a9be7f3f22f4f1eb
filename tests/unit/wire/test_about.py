"""What a vLLM server says of itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.wire.about import ModelCard, PrefixCache, read_models, read_prefix_cache, read_version, release

METRICS = """# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="32",enable_prefix_caching="True",engine="0",kv_cache_size_tokens="46592"} 1.0
vllm:num_requests_running{engine="0"} 0.0
"""


@pytest.mark.parametrize(
    ("version", "placed"),
    [
        ("0.32.0", (0, 32)),
        ("0.32.1.post1", (0, 32)),
        ("0.33.0rc2", (0, 33)),
        ("1.0.0+cpu", (1, 0)),
        ("0.32.1.dev12+gabcdef", None),
        ("dev", None),
    ],
)
def test_releases_are_placed_and_builds_between_them_are_not(version: str, placed: tuple[int, int] | None) -> None:
    assert release(version) == placed


def test_the_version() -> None:
    assert read_version(b'{"version": "0.32.0"}') == "0.32.0"
    assert read_version(b'{"version": 32}') is None
    assert read_version(b"<html>") is None


def test_the_models() -> None:
    body = b'{"data": [{"id": "a", "max_model_len": 4096}, {"id": "b"}, {"id": 3}, 4]}'
    assert read_models(body) == (ModelCard("a", 4096), ModelCard("b", None))
    assert read_models(b'{"error": "no"}') is None


def test_the_prefix_cache() -> None:
    assert read_prefix_cache(METRICS) == PrefixCache(32, True, 46_592)
    assert read_prefix_cache('vllm:cache_config_info{block_size="None",x="a\\"b"} 1.0') == PrefixCache(None, None, None)
    assert read_prefix_cache("vllm:num_requests_running 0.0") is None


@given(st.binary(max_size=200) | st.text(max_size=50).map(lambda text: f'{{"data": {text}}}'.encode()))
def test_nothing_raises(body: bytes) -> None:
    read_version(body)
    read_models(body)
    read_prefix_cache(body.decode(errors="replace"))
