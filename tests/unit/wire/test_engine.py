"""Our side of the plugin's wire: masks found in probes, the golden file, and every line that is not believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.errors import BadReply
from spex_proxy.facts.evidence import Probe
from spex_proxy.wire.engine import Answered, Interrupted, Layout, kept, lay_out, read_line, score_body
from spex_proxy.wire.scoring import Usage
from spex_proxy_vllm.asked import read

GOLDEN = json.loads((Path(__file__).parents[3] / "plugins/vllm_engine/golden/spex_score.json").read_text())
LAYOUT = Layout(tuple(GOLDEN["request"]["ids"]), tuple((a, b) for a, b in GOLDEN["request"]["segments"]))
PROBES = [Probe(tuple(ids), (40, 41), "") for ids in GOLDEN["prompts"]]


def sent(layout: Layout, probes: list[Probe]) -> dict[str, Any]:
    return score_body(
        "smollm2", layout, probes, priority=100, cache_salt="spex-golden", in_flight=4, warm=True, yields=True
    )


def test_the_golden_request() -> None:
    assert sent(LAYOUT, PROBES) == GOLDEN["request"]


def test_the_golden_response() -> None:
    *answers, end = [read_line(json.dumps(line).encode(), 4, 2) for line in GOLDEN["response"]]
    assert end == 4
    for answer in answers:
        assert isinstance(answer, Answered)
        if answer.reading is None:
            assert (answer.number, answer.again, answer.usage) == (3, False, Usage(8, 0))
            assert "no log-probability" in answer.error
        else:
            assert answer.reading.logprobs.tolist() == GOLDEN["logprobs"][str(answer.number)]
            assert answer.reading.logprobs.dtype == np.float32
            assert answer.error == ""


def test_the_golden_interruption_is_of_one_of_the_masks() -> None:
    line = json.dumps(GOLDEN["interruption"]).encode()
    assert read_line(line, 4, 2) == Interrupted(1)
    with pytest.raises(BadReply, match="without a mask's number"):
        read_line(line, 1, 2)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, list[list[bool]]]:
    """Few different ids, so that segments are often equal to each other and to what stands between them."""
    ids = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=30)))
    cuts = sorted(draw(st.lists(st.integers(1, len(ids)), unique=True, max_size=12)))
    segments = tuple(zip(cuts[::2], cuts[1::2], strict=False))
    row = st.lists(st.booleans(), min_size=len(segments), max_size=len(segments))
    return Layout(ids, segments), draw(st.lists(row, min_size=1, max_size=5))


def without(layout: Layout, mask: list[bool]) -> tuple[int, ...]:
    gone = {at for (a, b), keep in zip(layout.segments, mask, strict=True) if not keep for at in range(a, b)}
    return tuple(token for at, token in enumerate(layout.ids) if at not in gone)


@given(layouts())
def test_the_plugin_makes_the_probes_again(case: tuple[Layout, list[list[bool]]]) -> None:
    layout, masks = case
    probes = [Probe(without(layout, mask), (9,), "") for mask in masks]
    asked = read(json.dumps(sent(layout, probes)).encode())
    assert [tuple(asked.prompt(number)) for number in range(len(asked))] == [probe.prompt_ids for probe in probes]
    assert len(asked.ids) == len(layout.ids)  # found as masks, not sent one by one


@given(layouts(), st.lists(st.integers(1, 4), min_size=1, max_size=2))
def test_prompts_with_a_filler_are_masks_too(case: tuple[Layout, list[list[bool]]], filler: list[int]) -> None:
    layout, masks = case
    wide = lay_out(layout.ids, layout.segments, tuple(filler))
    probes = []
    for mask in masks:
        ids = list(layout.ids)
        for (a, b), keep in zip(layout.segments, mask, strict=True):
            if not keep:
                ids[a:b] = (filler * (b - a))[: b - a]
        probes.append(Probe(tuple(ids), (9,), ""))
    asked = read(json.dumps(sent(wide, probes)).encode())
    assert [tuple(asked.prompt(number)) for number in range(len(asked))] == [probe.prompt_ids for probe in probes]
    assert len(asked.ids) == len(wide.ids)


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=8), min_size=1, max_size=5))
def test_prompts_that_are_no_part_of_the_layout_are_sent_whole(prompts: list[list[int]]) -> None:
    probes = [Probe((*ids, 7), (9,), "") for ids in prompts]  # 7 is not in the layout
    asked = read(json.dumps(sent(LAYOUT, probes)).encode())
    assert [tuple(asked.prompt(number)) for number in range(len(asked))] == [probe.prompt_ids for probe in probes]


@pytest.mark.parametrize("ids", [(), (1,), (1, 2, 2), (2,), (1, 10, 11, 2), (1, 12, 20, 21, 2), (1, 30, 20, 21, 2)])
def test_what_is_not_the_prompt_with_segments_left_out(ids: tuple[int, ...]) -> None:
    assert kept(LAYOUT, ids) is None


GOOD = GOLDEN["response"][0]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[1]",
        b"{",
        b'{"done": true}',
        b'{"done": "4"}',
        b'{"done": 4, "more": 1}',
        *(
            json.dumps(GOOD | changes).encode()
            for changes in (
                {"mask": 4},
                {"mask": -1},
                {"mask": None},
                {"mask": True},
                {"prompt_tokens": None},
                {"cached_tokens": "0"},
                {"logprobs": None},
                {"logprobs": "AAAAvw=="},
                {"logprobs": "AAAAvwAAgL8"},
                {"logprobs": "AADAfwAAgL8="},
                {"logprobs": "AAAAPwAAgL8=", "value": -0.5},
                {"value": None},
                {"value": -1.6},
            )
        ),
    ],
)
def test_lines_that_are_not_believed(line: bytes) -> None:
    with pytest.raises(BadReply):
        read_line(line, 4, 2)
