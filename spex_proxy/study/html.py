"""An explanation as HTML: the figure that the pages show, or one file that needs nothing else and can be mailed."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from spex_proxy.study import words
from spex_proxy.study.board import Board
from spex_proxy.study.report import Report
from spex_proxy.study.sheet import Sheet
from spex_proxy.study.text import pieces, plain

HERE = Path(__file__).parent
ASSETS = HERE / "assets"
"""Style and behaviour of the figure; the pages serve them as files."""


def make_environment(*loaders: BaseLoader) -> Environment:
    """Templates of this room, and of those that `loaders` know. Everything is escaped; a missing name is an error."""
    environment = Environment(
        loader=ChoiceLoader([*loaders, FileSystemLoader(HERE / "templates")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        decimal=words.decimal,
        signed=words.signed,
        seconds=words.seconds,
        moment=words.moment,
        sentence=words.sentence,
        state_words=words.STATE_WORDS,
        plain=plain,
        pieces=pieces,
    )
    return environment


@cache
def _environment() -> Environment:
    return make_environment()


def standalone(sheet: Sheet) -> str:
    """One page with its style and script inside, and a policy that lets it load and send nothing."""
    return _page("standalone.html", {"sheet": sheet})


def report_page(report: Report) -> str:
    """The whole case as one page, under the same policy."""
    return _page("report.html", {"report": report, "sheet": report.sheet})


def board_page(board: Board, title: str) -> str:
    """The same for a function that is not a prompt's answer."""
    return _page("study.html", {"sheet": board, "title": title})


def _page(template: str, shown: dict[str, Any]) -> str:
    style, script = _inline("explanation.css"), _inline("figure.js")
    values = {
        **shown,
        "style": Markup(style),  # noqa: S704 - our own files, not a person's text
        "script": Markup(script),  # noqa: S704
        "style_hash": _hash(style),
        "script_hash": _hash(script),
    }
    return _environment().get_template(template).render(values)


def _inline(name: str) -> str:
    text = (ASSETS / name).read_text(encoding="utf-8")
    if "</" in text:
        raise AssertionError(f"{name} can't stand inside a page: it holds '</'")
    return text


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
