"""The main job on a real vLLM: asked through the real proxy with the `openai` client, explained, checked.

Everything is asked once, in one fixture, while nobody else uses the server; the tests look at what came of it.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.story.evidence import Evidence, evidence_of, token_ids
from tests.story.processes import Running, Settings, running, spex, wait_until

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(600)]

MODEL = "smollm2"
TRACE = "0af7651916cd43dd8448eb211c80319c"
STORY = "The lighthouse is old. Ada keeps it. She was born in Tolm. The sea is cold."
QUESTION = "Where was the keeper born?"
ENOUGH_S = 400
"""Half a minute on two idle cores; a machine that runs a whole test suite beside it is slower."""


@dataclass
class Day:
    """What an app saw, and where the rest is."""

    vllm: str
    proxy: Running
    store: Path
    ids: dict[str, str] = field(default_factory=dict)
    """Name of a request -> vLLM's id of its answer."""
    texts: dict[str, str] = field(default_factory=dict)
    billed: int = 0
    """Prompt tokens of all answers' `usage`."""
    logprobs: list[float] = field(default_factory=list)
    """Of the tokens of the answer to `chat`, as production returned them."""
    counted: int = 0
    """By how much vLLM's own counter of prompt tokens grew."""

    def sql(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.store)) as db:
            return db.execute(query, parameters).fetchall()

    def evidence(self, name: str) -> Evidence:
        return evidence_of(self.store, self.ids[name])


def prompt_tokens(vllm: str) -> int:
    lines = httpx.get(f"{vllm}/metrics", trust_env=False).text.splitlines()
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:prompt_tokens_total")))


@pytest.fixture(scope="module")
def day(vllm: str, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    folder = tmp_path_factory.mktemp("day")
    store = Path(shutil.copy(empty_store, folder / "spex.db"))
    settings = Settings(vllm, f"sqlite:///{store}", more={"budget": 40, "target_r2": 1})
    with running("up", settings, folder) as proxy:
        day = Day(vllm, proxy, store)
        before = prompt_tokens(vllm)
        ask_everything(day, OpenAI(base_url=f"{settings.relay_url}/v1", api_key="none", max_retries=0))
        wait_until(lambda: len(day.sql("SELECT 1 FROM outbox WHERE state IN ('done', 'failed')")) == 5, ENOUGH_S, 0.5)
        day.counted = prompt_tokens(vllm) - before
        yield day


def ask_everything(day: Day, client: OpenAI) -> None:
    common: dict[str, Any] = {"model": MODEL, "max_tokens": 10, "temperature": 0}
    streamed: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    user = [{"role": "user", "content": f"{STORY}\n{QUESTION}"}]

    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    chat = client.chat.completions.create(**common, messages=user, logprobs=True, extra_headers=headers)
    day.logprobs = [token.logprob for token in chat.choices[0].logprobs.content]
    note(day, "chat", chat.id, chat.choices[0].message.content, chat.usage)

    system = {"role": "system", "content": "Be brief."}
    chunks = list(client.chat.completions.create(**common, messages=[system, *user], **streamed))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    note(day, "chat, streamed", chunks[0].id, text, chunks[-1].usage)

    whole = client.completions.create(**common, prompt=f"{STORY} The sky is grey. So the keeper was born in")
    note(day, "completion", whole.id, whole.choices[0].text, whole.usage)

    parts = list(client.completions.create(**common, prompt="It rains. It is cold. So we stay at", **streamed))
    text = "".join(choice.text for part in parts for choice in part.choices)
    note(day, "completion, streamed", parts[0].id, text, parts[-1].usage)

    short = [{"role": "user", "content": "Say yes. Only yes."}]
    extra = {"return_token_ids": True}
    chunks = list(client.chat.completions.create(**common, messages=short, **streamed, extra_body=extra))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    note(day, "with ids", chunks[0].id, text, chunks[-1].usage)


def note(day: Day, name: str, upstream_id: str, text: str | None, usage: Any) -> None:
    day.ids[name] = upstream_id
    day.texts[name] = text or ""
    day.billed += usage.prompt_tokens


KINDS = {"chat": 5, "chat, streamed": 6, "completion": 6, "completion, streamed": 3, "with ids": 2}
"""Name of a request -> how many players it has."""


@pytest.mark.parametrize("name", KINDS)
def test_it_is_explained(day: Day, name: str) -> None:
    rows = day.sql(
        "SELECT o.state, o.reason, o.attempts, x.streamed, x.kind, e.n_players, e.verdict, e.cost_masks, e.r2 "
        "FROM exchanges x JOIN outbox o ON o.exchange_id = x.id LEFT JOIN explanations e ON e.exchange_id = x.id "
        "WHERE x.upstream_id = ?",
        day.ids[name],
    )
    ((state, reason, attempts, streamed, kind, players, verdict, masks, r2),) = rows
    assert (state, reason, attempts) == ("done", None, 1)
    assert streamed == ("streamed" in name or name == "with ids")
    assert kind == ("completion" if name.startswith("completion") else "chat")
    assert players == KINDS[name]
    assert verdict in ("reliable", "unreliable", "nothing_to_explain")
    assert masks == min(40, 2**players + 2)
    assert r2 is not None


def unanswered(day: Day) -> dict[str, int]:
    """Of all explanations together: batches that production ended, their masks without an answer, and how many tokens
    vLLM can have read for those."""
    found: Counter[str] = Counter()
    for (how,) in day.sql("SELECT how FROM explanations"):
        found.update(json.loads(zlib.decompress(how[4:]))["unanswered"])
    return dict(found)


def test_every_token_is_accounted_for(day: Day) -> None:
    """To the token where nothing was interrupted; else within what vLLM may have read for masks that were not answered.
    A server that others use too (SPEX_TEST_VLLM_URL) may count more; nobody else uses that of the tests."""
    ((cost,),) = day.sql("SELECT sum(cost_prompt_tokens) FROM explanations")
    lost = unanswered(day)
    assert cost > 0
    assert 0 <= day.counted - day.billed - cost <= lost["most_tokens"]
    assert (lost["most_tokens"] > 0) == (lost["batches"] > 0) == (lost["masks"] > 0)


def test_masks_were_asked_inside_the_engine_and_read_its_prefix_cache(day: Day) -> None:
    assert day.sql("SELECT DISTINCT json_extract(scorer, '$.name') FROM games") == [("engine",)]
    ((cached, prompt),) = day.sql("SELECT sum(cost_cached_tokens), sum(cost_prompt_tokens) FROM explanations")
    assert 0 < cached < prompt


@pytest.mark.parametrize("name", KINDS)
def test_masks_and_values_are_in_sql(day: Day, name: str) -> None:
    found = day.evidence(name)
    masks, n = found.masks, KINDS[name]
    assert masks.shape[1] == n
    assert masks.all(axis=1).sum() == 3  # the whole prompt, three times
    assert (~masks).all(axis=1).sum() == 1
    assert len({row.tobytes() for row in masks}) == len(masks) - 2
    assert found.values == pytest.approx(found.logprobs.astype("f8").sum(axis=1), abs=1e-12)
    assert (found.logprobs <= 1e-3).all()
    assert found.values[masks.all(axis=1)].mean() == pytest.approx(found.fidelity["value_full"], abs=1e-9)


@pytest.mark.parametrize("name", ["chat", "completion"])
def test_values_are_vllms_own(day: Day, name: str) -> None:
    """Asked again by another way: `echo` instead of `prompt_logprobs`, one prompt at a time."""
    found = day.evidence(name)
    for row in (0, len(found.masks) // 3, len(found.masks) // 2, len(found.masks) - 1):
        ids = [*found.masked_prompt(row), *found.output_ids]
        body = {"model": MODEL, "prompt": ids, "echo": True, "max_tokens": 0, "logprobs": 0}
        reply = httpx.post(f"{day.vllm}/v1/completions", json=body, timeout=120, trust_env=False).json()
        again = reply["choices"][0]["logprobs"]["token_logprobs"][: len(ids)][-len(found.output_ids) :]
        # bfloat16: another batch, another order of summation
        assert found.logprobs[row] == pytest.approx(again, abs=0.05)
        assert found.values[row] == pytest.approx(sum(again), abs=0.1)


def test_the_whole_prompts_value_is_the_production_answers_own(day: Day) -> None:
    found = day.evidence("chat")
    produced = day.logprobs[: len(found.output_ids)]  # production also counts the token that ends the answer
    for row in found.masks.all(axis=1).nonzero()[0]:
        # produced token by token, scored in one pass, in bfloat16
        assert found.logprobs[row] == pytest.approx(produced, abs=0.15)
        assert found.values[row] == pytest.approx(sum(produced), abs=0.5)


@pytest.mark.parametrize("name", KINDS)
def test_a_masked_prompt_reads_as_the_kept_segments(day: Day, name: str) -> None:
    """Only the seams may differ: the space between two segments belongs to the second one's first token."""
    found = day.evidence(name)
    middle = len(found.masks) // 2
    for row in (0, middle, int((~found.masks).all(axis=1).nonzero()[0][0])):
        body = {"model": MODEL, "tokens": found.masked_prompt(row)}
        reply = httpx.post(f"{day.vllm}/detokenize", json=body, trust_env=False).json()
        assert "".join(reply["prompt"].split()) == "".join(found.kept_text(row).split())
    assert found.masked_prompt(int(found.masks.all(axis=1).argmax())) == found.prompt_ids


@pytest.mark.parametrize("name", KINDS)
def test_ids_are_the_servers_and_where_they_came_from_is_stored(day: Day, name: str) -> None:
    stored = token_ids(day.store, day.ids[name])
    assert stored["ids_source"] == ("reply" if name == "with ids" else "render")
    body = {"model": MODEL, "tokens": stored["output_ids"]}
    answer = httpx.post(f"{day.vllm}/detokenize", json=body, trust_env=False).json()["prompt"]
    assert answer.removesuffix("<|im_end|>") == day.texts[name]
    ((counted,),) = day.sql("SELECT prompt_tokens FROM exchanges WHERE upstream_id = ?", day.ids[name])
    assert counted == len(stored["prompt_ids"])


def test_any_id_finds_it(day: Day) -> None:
    ((explanation_id,),) = day.sql(
        "SELECT e.id FROM exchanges x JOIN explanations e ON e.exchange_id = x.id WHERE upstream_id = ?",
        day.ids["chat"],
    )
    for any_id in (day.ids["chat"], TRACE, explanation_id[:12]):
        shown = spex("show", any_id, settings=day.proxy.settings)
        assert shown.returncode == 0, shown.stderr
        assert "Ada keeps it." in shown.stdout
        assert explanation_id[:12] in shown.stdout
        assert "R²" in shown.stdout


def test_the_other_commands(day: Day, tmp_path: Path) -> None:
    settings = day.proxy.settings
    listed = spex("list", settings=settings)
    assert listed.returncode == 0, listed.stderr
    for upstream_id in day.ids.values():
        assert upstream_id[:16] in listed.stdout
    verified = spex("verify", day.ids["chat, streamed"], settings=settings)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "follows from its evidence" in verified.stdout
    unknown = spex("show", "chatcmpl-0000", settings=settings)
    assert unknown.returncode == 1
    assert "nothing in project" in unknown.stderr
    assert "Traceback" not in unknown.stderr

    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(day.store)) as original, closing(sqlite3.connect(copy)) as db, db:
        original.backup(db)
        db.execute("UPDATE explanations SET verdict_reason = 'trust me'")
    forged = spex("verify", day.ids["chat"], "--store", f"sqlite:///{copy}", settings=settings)
    assert forged.returncode == 1
    assert "does NOT follow" in " ".join(forged.stderr.split())


def test_explain_on_demand_with_other_players(day: Day) -> None:
    """No production beside it, so nothing is interrupted, and vLLM has read what is stored, to the token."""
    before, lost = prompt_tokens(day.vllm), unanswered(day)
    done = spex("explain", day.ids["chat, streamed"], "--segmenter", "message", settings=day.proxy.settings)
    assert done.returncode == 0, done.stderr
    assert "2 players" in done.stdout
    rows = day.sql(
        "SELECT e.n_players, e.cost_masks FROM explanations e JOIN exchanges x ON x.id = e.exchange_id "
        "WHERE x.upstream_id = ? ORDER BY e.created_at",
        day.ids["chat, streamed"],
    )
    assert rows[-1] == (2, 2**2 + 2)
    assert len(rows) == 2
    ((cost,),) = day.sql("SELECT cost_prompt_tokens FROM explanations ORDER BY created_at DESC LIMIT 1")
    assert unanswered(day) == lost
    assert prompt_tokens(day.vllm) - before == cost > 0
