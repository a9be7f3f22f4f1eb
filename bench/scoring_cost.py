"""What an explanation's masks cost the model server: computed prompt tokens as a share of the naive cost.

    python -m bench.scoring_cost [--upstream URL] [--masks 24] [--header 192] [--players 16] [--segment 12] [--answer 8]
                                 [--stock 8]

Naive is masks x tokens of the full prompt: every mask read whole. `completions` reads whole whatever it is asked, and
slowly: it gets only --stock of the uniform masks, to compare values. Without --upstream, vLLM with the small model is
started on the CPU, with our plugin (`make vllm`). Prompts are random tokens: a header that nobody masks, then the
players. All counts are the server's own (`vllm:prompt_tokens_total` less `vllm:prompt_tokens_cached_total`), and are
compared with what the scorer stores. No time is measured, so a busy machine does no harm.

| masks            | what is asked                                                                            |
|------------------|------------------------------------------------------------------------------------------|
| uniform          | each player kept or not, with probability 1/2                                            |
| late segments    | the recipe's design `late`: most masks in groups that differ in the second half only     |
| coarse to fine   | half of the masks over groups of four players, half inside the last two groups, others kept |
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import numpy as np
from numpy.typing import NDArray

from bench import table
from deploy.demo.vllm_cpu import running_vllm
from spex_proxy.engine import draws
from spex_proxy.facts.evidence import Masks, Probe
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.scorers import Scorer
from spex_proxy.ports.scorers.choose import Scorers
from spex_proxy.wire.about import read_prefix_cache
from spex_proxy.wire.engine import Layout

VOCABULARY = range(100, 20_000)
"""Ids that every model of today has, and none of them special."""
GROUP = 4
UNIFORM_MOST, ECONOMICAL_MOST, AGREE_MOST = 0.60, 0.40, 1e-3
PRIORITY = 100


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    backend: str
    design: str
    order: str


CASES = (
    Case("completions", "uniform", "depth first"),
    Case("engine", "uniform", "as drawn"),
    Case("engine", "uniform", "depth first"),
    Case("engine", "late segments", "depth first"),
    Case("engine", "coarse to fine", "depth first"),
)


@dataclass
class Found:
    """What came of a case."""

    case: Case
    masks: int
    stored: tuple[int, int]
    """Prompt tokens and those read from the cache, as the scorer counts them."""
    counted: tuple[int, int]
    """The same, as the server's own counters grew."""
    logprobs: dict[bytes, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def computed(self) -> int:
        return self.counted[0] - self.counted[1]


def masks_of(design: str, players: int, count: int) -> Masks:
    """Distinct masks, (count, players), in the order drawn; the full and the empty one first."""
    corner = np.array([[True] * players, [False] * players])
    rest = count - len(corner)
    if design == "uniform":
        return np.concatenate([corner, draws.uniform_masks(players, rest, 0)])
    if design == "late segments":
        drawn, _ = draws.late_masks(players, rest, 1)
    else:
        groups = -(-players // GROUP)
        coarse = np.repeat(draws.uniform_masks(groups, rest // 2, 3), GROUP, axis=1)[:, :players]
        fine = np.ones((rest - len(coarse), players), dtype=np.bool_)
        fine[:, -2 * GROUP :] = draws.uniform_masks(2 * GROUP, len(fine), 4)
        drawn = np.concatenate([coarse, fine])
    return np.concatenate([corner, drawn])


def in_order(masks: Masks, order: str) -> Masks:
    return masks if order == "as drawn" else masks[np.lexsort((~masks).T[::-1])]


def make_layout(header: int, players: int, segment: int) -> Layout:
    size = header + players * segment
    ids = np.random.Generator(np.random.PCG64(7)).integers(VOCABULARY.start, VOCABULARY.stop, size)
    starts = range(header, size, segment)
    return Layout(tuple(ids.tolist()), tuple((start, start + segment) for start in starts))


def probe(layout: Layout, mask: NDArray[np.bool_], answer: Sequence[int]) -> Probe:
    keep = np.ones(len(layout.ids), dtype=np.bool_)
    for (start, end), is_kept in zip(layout.segments, mask, strict=True):
        keep[start:end] = is_kept
    return Probe(tuple(np.asarray(layout.ids)[keep].tolist()), tuple(answer), "")


async def measure(case: Case, scorer: Scorer, url: str, layout: Layout, masks: Masks, answer: Sequence[int]) -> Found:
    masks = in_order(masks, case.order)
    before = counters(url)
    prompt_tokens = cached_tokens = 0
    found = Found(case, len(masks), (0, 0), (0, 0))
    for start in range(0, len(masks), scorer.batch_size):
        part = masks[start : start + scorer.batch_size]
        scored = await scorer.score([probe(layout, mask, answer) for mask in part], {})
        prompt_tokens += scored.prompt_tokens
        cached_tokens += scored.cached_tokens
        for mask, reading in zip(part, scored.readings, strict=True):
            if reading is None:
                raise SystemExit("the server left a mask unanswered: is it used by others?")
            found.logprobs[mask.tobytes()] = reading.logprobs
    after = counters(url)
    found.stored = prompt_tokens, cached_tokens
    found.counted = after[0] - before[0], after[1] - before[1]
    return found


def counters(url: str) -> tuple[int, int]:
    """Prompt tokens, and those of them read from the prefix cache."""
    lines = httpx.get(f"{url}/metrics", trust_env=False, timeout=60).text.splitlines()

    def total(name: str) -> int:
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{")))

    return total("vllm:prompt_tokens_total"), total("vllm:prompt_tokens_cached_total")


async def run(url: str, model: str, layout: Layout, count: int, stock: int, answer: Sequence[int]) -> list[Found]:
    found = []
    async with ModelServer(url) as server:
        info = await server.info(model)
        for case in CASES:
            scorer = await Scorers(server, case.backend, PRIORITY).make(info, layout)  # a salt of its own
            masks = masks_of(case.design, len(layout.segments), count)
            if case.backend == "completions":
                masks = in_order(masks, case.order)[:: max(1, len(masks) // stock)][:stock]
            found.append(await measure(case, scorer, url, layout, masks, answer))
            print(f"{case.backend}, {case.design}, {case.order}: done", file=sys.stderr, flush=True)
    return found


def difference(found: Sequence[Found]) -> tuple[int, float]:
    """(compared tokens, largest difference in nats) of masks that both `completions` and `engine` answered."""
    largest, compared = 0.0, 0
    known = {mask: row for one in found if one.case.backend == "completions" for mask, row in one.logprobs.items()}
    for one in found:
        for mask, row in one.logprobs.items() if one.case.backend != "completions" else ():
            if mask in known:
                compared += len(row)
                largest = max(largest, float(np.abs(row.astype("f8") - known[mask]).max()))
    return compared, largest


def report(found: Sequence[Found], layout: Layout, answer: int, block: int | None) -> str:
    size, header = len(layout.ids), layout.segments[0][0]
    head = ["backend", "masks", "order", "asked", "read from cache", "computed", "share of naive"]
    rows = [
        [
            one.case.backend, f"{one.masks} {one.case.design}", one.case.order, f"{one.counted[0]:,}",
            f"{one.counted[1]:,}", f"{one.computed:,}", f"{one.computed / (one.masks * size):.0%}",
        ]
        for one in found
    ]  # fmt: skip
    compared, largest = difference(found)
    off = [one for one in found if one.stored[0] != one.counted[0] or one.stored[1] not in (0, one.counted[1])]
    lines = [
        table.markdown(head, rows), "",
        f"Prompt: {size} tokens, of which {header} header and {len(layout.segments)} players; answer: {answer} tokens;"
        f" blocks of {block or 'unknown'} tokens.",
        f"Stored counts equal the server's own: {'no' if off else 'yes'}.",
        told(f"engine against completions, {compared} tokens, largest difference in nats", largest, AGREE_MOST, "g"),
    ]  # fmt: skip
    for one in found:
        if one.case.backend == "engine" and one.case.order == "depth first":
            most = UNIFORM_MOST if one.case.design == "uniform" else ECONOMICAL_MOST
            lines.append(told(f"engine, {one.case.design}", one.computed / (one.masks * size), most, ".0%"))
    return "\n".join(lines)


def told(what: str, figure: float, most: float, form: str) -> str:
    return f"{what}: {figure:{form}}, at most {most:{form}} is asked: {'met' if figure <= most else 'MISSED'}"


@contextlib.contextmanager
def server(upstream: str | None) -> Iterator[str]:
    if upstream:
        yield upstream.rstrip("/")
        return
    with running_vllm() as url:
        yield url


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scoring_cost", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--upstream", help="a vLLM server with our plugin that nobody else uses")
    parser.add_argument("--model", help="what it serves; the first by default")
    defaults = {"masks": 24, "stock": 8, "header": 192, "players": 16, "segment": 12, "answer": 8}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(given)
    layout = make_layout(options.header, options.players, options.segment)
    answer = list(range(1000, 1000 + options.answer))
    with server(options.upstream) as url:
        cache = read_prefix_cache(httpx.get(f"{url}/metrics", trust_env=False, timeout=60).text)
        listed = httpx.get(f"{url}/v1/models", trust_env=False, timeout=60).json()["data"]
        found = asyncio.run(run(url, options.model or listed[0]["id"], layout, options.masks, options.stock, answer))
    print(report(found, layout, options.answer, cache.block_tokens if cache else None))
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, python -m bench.scoring_cost {' '.join(given)}".rstrip())


if __name__ == "__main__":
    main(sys.argv[1:])
