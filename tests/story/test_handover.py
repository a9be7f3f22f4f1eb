"""Capture without a hop: apps ask vLLM itself, and the store holds what it would hold if they had asked the relay."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from spex_proxy.facts.exchange import Exchange
from spex_proxy.store.connect import open_store, reading
from spex_proxy.store.exchanges import load_exchange
from spex_proxy_vllm.board import Board
from tests.story.explaining import count
from tests.story.handing import KEY, captured, model, served
from tests.story.processes import Running, Settings, free_port, running, wait_until

pytestmark = pytest.mark.timeout(240)

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Is it so?"}]}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ENOUGH_S = 60


def ask(url: str, *, stream: bool = False, key: str = "app", **headers: str) -> httpx.Response:
    more = {name.replace("_", "-"): value for name, value in headers.items()} | {"authorization": f"Bearer {key}"}
    return httpx.post(
        f"{url}/v1/chat/completions", json=ASKED | {"stream": stream}, headers=more, trust_env=False, timeout=30
    )


def settings(upstream: str, store_path: Path, **more: Any) -> Settings:
    return Settings(upstream, f"sqlite:///{store_path}", more={"explain_rate": 0, "handover_key": KEY} | more)


def exchanges(store_path: Path) -> list[Exchange]:
    engine = open_store(f"sqlite:///{store_path}")
    try:
        with reading(engine) as connection:
            ids = connection.exec_driver_sql("SELECT id FROM exchanges ORDER BY id").scalars()
            return [load_exchange(connection, one) for one in list(ids)]
    finally:
        engine.dispose()


def has_stored(house: Running, number: int) -> bool:
    return stored(house) == number


def stored(house: Running) -> int:
    return int(house.metric("stored_exchanges_total"))


def test_the_store_holds_the_same_whichever_way_it_passed(store_path: Path, tmp_path: Path) -> None:
    with served(model) as plain, running("serve", settings(plain, store_path), tmp_path) as house:
        with captured(house.settings.admin_url, board := Board()) as direct:
            for number, stream in enumerate((False, True)):
                answers = [ask(url, stream=stream, traceparent=TRACE) for url in (house.settings.relay_url, direct)]
                assert answers[0].content == answers[1].content
                assert answers[1].headers.get("x-spex-request-id") is None
                wait_until(partial(has_stored, house, 2 * number + 2), ENOUGH_S)
            assert ask(direct, key="wrong").status_code == 401
            assert board.production == (0, 0)
        assert house.metric("handed_over_total", '{outcome="taken"}') == 2
        assert house.metric("handover_lost_total") == 0
    first, second, third, fourth = exchanges(store_path)
    for relayed, direct_one in ((first, second), (third, fourth)):
        same = replace(
            direct_one, id=relayed.id, received_at=relayed.received_at, first_byte_s=relayed.first_byte_s,
            duration_s=relayed.duration_s,
        )  # fmt: skip
        assert same == relayed
        assert direct_one.received_at >= relayed.received_at


def test_rules_and_headers_hold_and_nothing_is_lost_while_the_proxy_is_away(store_path: Path, tmp_path: Path) -> None:
    house = settings("http://127.0.0.1:9", store_path, capture_rate=0, explain_callers="key", explain_key="may")
    with captured(house.admin_url, Board()) as direct:
        ask(direct, x_spex_explain="yes", x_spex_key="may")  # nobody listens yet
        with running("serve", house, tmp_path) as first:
            wait_until(lambda: stored(first) == 1, ENOUGH_S)
            ask(direct)
            ask(direct, x_spex_explain="yes")
            wait_until(lambda: first.metric("handed_over_total", '{outcome="unwatched"}') == 2, ENOUGH_S)
            assert first.metric("refused_overrides_total") == 1
        ask(direct, x_spex_explain="yes", x_spex_key="may")
        with running("serve", house, tmp_path) as second:
            wait_until(lambda: stored(second) == 1, ENOUGH_S)
            assert second.metric("handover_lost_total") == 0
    engine = open_store(house.store)
    assert count(engine, "outbox") == 2
    engine.dispose()


def test_under_durable_hand_off_it_is_on_disk_before_it_is_taken(store_path: Path, tmp_path: Path) -> None:
    house = settings("http://127.0.0.1:9", store_path, handoff="durable", spool=tmp_path / "spool")
    with running("serve", house, tmp_path) as serving, captured(house.admin_url, Board()) as direct:
        ask(direct)
        wait_until(lambda: stored(serving) == 1, ENOUGH_S)
        assert serving.metric("handed_over_total", '{outcome="taken"}') == 1


def test_the_door_opens_to_the_key_only_and_says_what_is_wrong(store_path: Path, tmp_path: Path) -> None:
    house = settings("http://127.0.0.1:9", store_path, max_body_bytes=1000)
    with running("serve", house, tmp_path):
        door = f"{house.admin_url}/spex/handover"
        for headers, body, status in (
            ({}, b"", 401),
            ({"authorization": "Bearer between"}, b"", 401),
            ({"authorization": f"Bearer {KEY}"}, b"nonsense", 400),
            ({"authorization": f"Bearer {KEY}"}, b" " * 200_000, 413),
        ):
            reply = httpx.post(door, content=body, headers=headers, trust_env=False)
            assert reply.status_code == status
            assert reply.json()["error"]["message"]
    closed = replace(house, port=free_port(), admin_port=free_port(), more={"explain_rate": 0})
    with running("serve", closed, tmp_path):
        assert httpx.post(f"{closed.admin_url}/spex/handover", content=b"", trust_env=False).status_code == 404
