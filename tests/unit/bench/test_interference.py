"""The interference bench: what its windows are made into, and the scripted engine that they are measured on."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path

import pytest

from bench.interference.engine import BUDGET, STEP_S, TOKEN_S, Engine, Work
from bench.interference.load import Line, Load, request
from bench.interference.report import Pair, Record, figures, off_pairs, read, report, verdicts, write
from bench.interference.stamps import Stamps


def window(first_p99: float, gap_p99: float = 0.01, requests: int = 600) -> dict[str, float]:
    return {"first_p50": 0.01, "first_p99": first_p99, "gap_p50": 0.005, "gap_p99": gap_p99, "requests": requests}


def done(masks: int) -> dict[str, int]:
    return {"masks": masks, "prompt_tokens": 100 * masks, "cached_tokens": 10 * masks, "finished": 1, "aborted": 2}


def record(ratio: float, masks: int, pairs: int = 5) -> Record:
    made = Record(200.0, idle={"free": 10.0, "gate": 8.0})
    made.pairs = [Pair("gate", window(0.02), window(0.02 * ratio), done(masks), 2.0) for _ in range(pairs)]
    return made


def test_figures_of_a_window() -> None:
    found = figures([0.1] * 99 + [0.5], [], 100)
    assert (found["first_p50"], found["requests"]) == (0.1, 100)
    assert 0.1 < found["first_p99"] < 0.5
    assert math.isnan(found["gap_p99"])


def test_chance_is_seen_from_both_sides() -> None:
    made = record(1.0, 1)
    made.pairs[1] = Pair("gate", window(0.04), window(0.04), done(1), 2.0)
    assert sorted(off_pairs(made, "first_p99")) == pytest.approx([0.5, 0.5, 1, 1, 1, 1, 2, 2])


@pytest.mark.parametrize(
    ("ratio", "masks", "pairs", "missed"),
    [(1.04, 6, 5, []), (1.2, 6, 5, ["p99 of TTFT"]), (1.0, 2, 5, ["masks inside"]), (1.0, 6, 2, ["pairs of windows"])],
)
def test_what_is_missed_is_said(ratio: float, masks: int, pairs: int, missed: list[str]) -> None:
    lines = [line for line in verdicts(record(ratio, masks, pairs)) if "missed" in line]
    assert len(lines) == len(missed)
    assert all(words in line for words, line in zip(missed, lines, strict=True))


def test_the_table_has_a_line_for_each_mode_and_one_for_chance() -> None:
    said = report(record(1.5, 6))
    assert "| with gate" in said
    assert "1.50 (1.50..1.50)" in said
    assert "| off against off" in said
    assert "30%" in said  # 3 masks a second of 10


async def test_a_masked_query_lengthens_the_step_that_it_shares() -> None:
    engine = Engine(by_priority=True, stamps=Stamps())
    running = asyncio.create_task(engine.run())
    took = []
    for size in (1, 1500):
        begun = time.perf_counter()
        work = engine.add(Work(size, 0, 100, done=asyncio.Event()))
        assert work.done is not None
        await work.done.wait()
        took.append(time.perf_counter() - begun)
        assert took[-1] >= STEP_S + TOKEN_S * size
    assert engine.prompt_tokens == 1501
    running.cancel()


async def test_a_queue_is_worked_off_by_priority_and_within_the_steps_budget() -> None:
    engine = Engine(by_priority=True, stamps=Stamps())
    low, high = Work(BUDGET, 0, 100, done=asyncio.Event()), Work(BUDGET, 0, 0, done=asyncio.Event())
    engine.add(low)
    engine.add(high)
    assert engine._begin() == BUDGET
    assert (engine.running, engine.waiting) == ([high], [low])
    low.is_gone = True
    engine._end()
    engine._begin()
    assert (engine.running, engine.waiting) == ([], [])


def test_what_a_stream_says_is_measured_by_its_tokens() -> None:
    load = Load(1, "m", "p", 3)
    line = Line(load)
    line._is_busy, line._sent_at = True, time.perf_counter()
    load._running.add(line)
    role = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
    word = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    for data in (b"HTTP/1.1 200 OK\r\n\r\n" + role, word, word, b"data: [DONE]\n\n\r\n0\r\n", b"\r\n"):
        line.data_received(data)
    assert (len(load.seen.first), len(load.seen.gaps), len(load.seen.whole), load.seen.errors) == (1, 1, 1, [])
    assert request(1, "m", "p", 3, stream=True).count(b"\r\n\r\n") == 1


def test_windows_are_kept_and_gone_on_with(tmp_path: Path) -> None:
    kept, about = tmp_path / "windows.json", {"tokens": 2}
    assert read(kept, about) is None
    made = record(1.1, 6, pairs=2)
    write(made, about, kept)
    assert read(kept, about) == made
    with pytest.raises(SystemExit, match="tokens"):
        read(kept, {"tokens": 3})
    assert made.missing(["gate", "free"], 3) == ["free", "free", "gate", "free"]


def test_without_an_idle_rate_no_share_of_it_is_told() -> None:
    made = record(1.0, 6)
    made.idle = {"free": 0.0, "gate": 0.0}
    assert any("not known" in line for line in verdicts(made))
    assert "| with gate" in report(made)
