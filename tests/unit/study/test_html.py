"""One file: complete, inert, and with a policy that lets nothing in or out."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

from spex_proxy.facts.exchange import Message
from spex_proxy.study.html import ASSETS, standalone
from spex_proxy.study.sheet import make_sheet
from tests.unit.examples import a_game, an_exchange, an_explanation

BAD = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x00\ud800'\"</style>"


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def page(bad: str = BAD) -> str:
    exchange = an_exchange(
        messages=(Message("system", bad), Message("tool", bad + "x" * 60, bad), Message("user", bad + "y" * 60)),
        output_text=bad, model=bad, upstream_id=bad,
    )  # fmt: skip
    return standalone(make_sheet(an_explanation(verdict_reason=bad), a_game(), exchange, None))


def test_hostile_text_adds_no_element_and_no_attribute() -> None:
    hostile, harmless = Tags(page()).seen, Tags(page("harmless text")).seen
    assert {tag for tag, _ in hostile} == {tag for tag, _ in harmless}
    assert [tag for tag, _ in hostile].count("script") == 1
    assert not [name for _, attributes in hostile for name in attributes if name.startswith("on") or name == "style"]


def test_it_asks_nobody_for_anything() -> None:
    for tag, attributes in Tags(page()).seen:
        assert tag not in ("link", "img", "iframe", "object", "base", "form")
        for name in ("src", "href", "action"):
            assert str(attributes.get(name) or "#").startswith("#")
    assert not re.search(r"url\(|@import", (ASSETS / "explanation.css").read_text())


def test_its_policy_allows_its_own_style_and_script_alone() -> None:
    html = page()
    policy = next(str(a["content"]) for tag, a in Tags(html).seen if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    for tag in ("style", "script"):
        (body,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", html, re.DOTALL)
        assert "sha256-" + base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() in policy


def test_it_can_be_written_as_utf_8() -> None:
    assert page().encode("utf-8")
