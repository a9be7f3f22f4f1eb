"""Scoring replies: what is sent, what is believed, and every way in which a reply is not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.errors import BadReply
from spex_proxy.facts.evidence import Probe
from spex_proxy.wire.scoring import Usage, completions_body, read_completions

PROBES = [Probe((5, 6, 7), (8, 9), "d0"), Probe((5,), (8, 9), "d1")]


def a_reply() -> dict[str, Any]:
    """As vLLM 0.32 sends it: rows of {token id: entry}, the first one null, choices in any order."""

    def row(token: int, logprob: float) -> dict[str, Any]:
        return {str(token): {"logprob": logprob, "rank": 1, "decoded_token": "x"}}

    return {
        "choices": [
            {"index": 1, "text": "!", "prompt_logprobs": [None, row(8, -0.5), row(9, -1.5)]},
            {
                "index": 0,
                "text": "!",
                "prompt_logprobs": [None, row(6, -9.0), row(7, -9.0), row(8, -0.25), row(9, -2.0)],
            },
        ],
        "usage": {"prompt_tokens": 8, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 3}},
    }


def test_the_answers_tokens_are_read_in_the_probes_order() -> None:
    readings, usage = read_completions(a_reply(), PROBES)
    assert [reading.logprobs.tolist() for reading in readings] == [[-0.25, -2.0], [-0.5, -1.5]]
    assert {reading.logprobs.dtype for reading in readings} == {np.dtype(np.float32)}
    assert usage == Usage(prompt_tokens=8, cached_tokens=3)


def test_the_body_asks_for_nothing_that_vllm_would_ignore_in_silence() -> None:
    body = completions_body("tiny", PROBES, priority=100, cache_salt="s")
    assert body == {
        "model": "tiny",
        "prompt": [[5, 6, 7, 8, 9], [5, 8, 9]],
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
        "priority": 100,
        "cache_salt": "s",
    }
    assert json.loads(json.dumps(body)) == body


Spoil = Callable[[dict[str, Any]], Any]


def at(*path: str | int, value: Any) -> Spoil:
    """Put `value` at a path of the reply."""

    def spoil(reply: dict[str, Any]) -> dict[str, Any]:
        inside: Any = reply
        for step in path[:-1]:
            inside = inside[step]
        inside[path[-1]] = value
        return reply

    return spoil


LAST = ("choices", 0, "prompt_logprobs", 2)
"""The row of probe 1's last token, 9."""


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda _: None, "asked for 2 probes, the server answered no choices"),
        (lambda _: [], "no choices"),
        (lambda _: {"error": "x"}, "no choices"),
        (at("choices", value={"0": 1}), "no choices"),
        (at("choices", value=[]), "answered 0 choices"),
        (lambda r: {**r, "choices": r["choices"] * 2}, "answered 4 choices"),
        (at("choices", 1, "index", value=1), "no index 0"),
        (at("choices", 1, "index", value=None), "no index 0"),
        (at("choices", 1, "index", value=[0]), "no index 0"),
        (at("choices", 0, value="text"), "no index 1"),
        # rows: the field may be ignored, cut, or shifted
        (at("choices", 0, "prompt_logprobs", value=None), "probe 1: 3 rows of prompt_logprobs were due, none came"),
        (at("choices", 0, "prompt_logprobs", value=[None] * 2), "probe 1: 3 rows .* 2 came"),
        (at("choices", 0, "prompt_logprobs", value=[None] * 4), "probe 1: 3 rows .* 4 came"),
        (at(*LAST, value=None), "probe 1: no log-probability came for token 9"),
        (at(*LAST, value=[-1.0]), "token 9"),
        (at(*LAST, value={}), "token 9"),
        (at(*LAST, value={"7": {"logprob": -1.0}}), "token 9"),  # a row for another token
        (at(*LAST, value={"9": -1.0}), "token 9"),
        (at(*LAST, "9", value={}), "token 9"),
        (at(*LAST, "9", "logprob", value=None), "token 9"),
        (at(*LAST, "9", "logprob", value="-1"), "token 9"),
        (at(*LAST, "9", "logprob", value=False), "token 9"),
        (at(*LAST, "9", "logprob", value=float("nan")), "token 9"),
        (at(*LAST, "9", "logprob", value=float("inf")), "token 9"),
        (at(*LAST, "9", "logprob", value=float("-inf")), "token 9"),
        (at(*LAST, "9", "logprob", value=-(10**400)), "token 9"),
        (at(*LAST, "9", "logprob", value=-1e300), "token 9"),  # would be -inf as float32
        (at(*LAST, "9", "logprob", value=12.5), "token 9 is positive.*raw_logits"),
        (at("usage", value=None), "usage.prompt_tokens"),
        (at("usage", value={}), "usage.prompt_tokens"),
        (at("usage", "prompt_tokens", value=None), "usage.prompt_tokens"),
        (at("usage", "prompt_tokens", value="8"), "usage.prompt_tokens"),
    ],
)
def test_what_is_not_believed(spoil: Spoil, said: str) -> None:
    with pytest.raises(BadReply, match=said):
        read_completions(spoil(a_reply()), PROBES)


def test_a_probe_without_a_prompt_has_no_first_row() -> None:
    """The first token of a prompt has no log-probability: the server says null, and we say so."""
    reply = {
        "choices": [{"index": 0, "prompt_logprobs": [None, {"9": {"logprob": -1.0}}]}],
        "usage": {"prompt_tokens": 2},
    }
    with pytest.raises(BadReply, match="token 8"):
        read_completions(reply, [Probe((), (8, 9), "d")])


def test_rounding_above_zero_and_vllms_lowest_are_believed() -> None:
    reply = a_reply()
    at(*LAST, "9", "logprob", value=5e-4)(reply)
    at("choices", 0, "prompt_logprobs", 1, "8", "logprob", value=-9999.0)(reply)
    readings, _ = read_completions(reply, PROBES)
    assert readings[1].logprobs.tolist() == [-9999.0, pytest.approx(5e-4)]


@pytest.mark.parametrize("details", [None, "x", {}, {"cached_tokens": None}, {"cached_tokens": "3"}, []])
def test_cached_tokens_are_a_courtesy(details: Any) -> None:
    reply = a_reply()
    reply["usage"]["prompt_tokens_details"] = details
    assert read_completions(reply, PROBES)[1] == Usage(8, 0)


nonsense = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10) | st.floats() | st.text("0a", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["index", "prompt_logprobs", "8", "9", "logprob", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
paths = st.sampled_from(
    [
        ("choices",), ("choices", 0), ("choices", 0, "index"), ("choices", 0, "prompt_logprobs"),
        ("choices", 0, "prompt_logprobs", 1), LAST, (*LAST, "9"), (*LAST, "9", "logprob"),
        ("usage",), ("usage", "prompt_tokens"), ("usage", "prompt_tokens_details"),
    ]
)  # fmt: skip


@given(paths, nonsense)
def test_nonsense_anywhere_is_a_bad_reply_or_leaves_finite_numbers(path: tuple[Any, ...], value: Any) -> None:
    """Never another exception, never a NaN in the evidence."""
    reply = copy.deepcopy(a_reply())
    at(*path, value=value)(reply)
    try:
        readings, usage = read_completions(reply, PROBES)
    except BadReply:
        return
    assert all(np.isfinite(reading.logprobs).all() for reading in readings)
    assert isinstance(usage.cached_tokens, int)


@given(nonsense)
def test_no_reply_at_all_is_believed(reply: Any) -> None:
    with pytest.raises(BadReply):
        read_completions(reply, PROBES)
