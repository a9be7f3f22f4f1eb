"""The pages in a headless Chromium: the one that the system has; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from spex_proxy.store.connect import open_store
from spex_proxy.store.migrate import upgrade
from tests.browser.serving import Site, site
from tests.browser.stories import Stories

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = (
    "no Chromium: install it (Debian, Ubuntu: apt-get install chromium; macOS: brew install --cask chromium) "
    "or name one in CHROMIUM"
)


@pytest.fixture(scope="session")
def chromium() -> str:
    found = os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(MISSING)
    return str(found)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One for each file: while it is open, this thread's event loop is playwright's, and async tests can't run."""
    with sync_playwright() as playwright:
        # containers rarely allow the sandbox's namespaces; the pages are our own, from loopback
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Stories]:
    """A store with one exchange of every kind, and their ids. To be copied, not changed."""
    path = tmp_path_factory.mktemp("stories") / "spex.db"
    engine = open_store(f"sqlite:///{path}")
    upgrade(engine)
    with engine.begin() as conn:
        stories = Stories(conn)
    engine.dispose()
    return path, stories


@pytest.fixture(scope="session")
def stories(filled: tuple[Path, Stories]) -> Stories:
    return filled[1]


def _serve(path: Path) -> Iterator[Site]:
    engine = open_store(f"sqlite:///{path}")
    upgrade(engine)
    with site(engine) as running:
        yield running
    engine.dispose()


@pytest.fixture(scope="session")
def shared(filled: tuple[Path, Stories]) -> Iterator[Site]:
    """The second port over the filled store, for tests that only read."""
    yield from _serve(filled[0])


@pytest.fixture
def own(filled: tuple[Path, Stories], tmp_path: Path, contexts: list[Any]) -> Iterator[Site]:
    """The same over a copy, for tests that change something."""
    with closing(sqlite3.connect(filled[0])) as source, closing(sqlite3.connect(tmp_path / "spex.db")) as copy:
        source.backup(copy)
    yield from _leaving(contexts, _serve(tmp_path / "spex.db"))


@pytest.fixture
def empty(tmp_path: Path, contexts: list[Any]) -> Iterator[Site]:
    yield from _leaving(contexts, _serve(tmp_path / "empty.db"))


@pytest.fixture
def contexts() -> list[Any]:
    """What `open_page` has opened."""
    return []


def _leaving(contexts: list[Any], sites: Iterator[Site]) -> Iterator[Site]:
    """Close the pages before their server goes away: they would complain."""
    for running in sites:
        yield running
        while contexts:
            contexts.pop().close()


@pytest.fixture
def open_page(browser: Browser, contexts: list[Any]) -> Iterator[Callable[..., Page]]:
    """Opens pages; at the end none of them may have complained, or asked anybody but its own server."""
    complaints: list[str] = []

    def open_one(url: str, **options: Any) -> Page:
        expected = options.pop("expected_errors", 0)
        context = browser.new_context(viewport=options.pop("viewport", {"width": 1280, "height": 900}), **options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        own, failures = urlsplit(url).netloc, [0]

        def heard(message: Any) -> None:
            if message.type not in ("error", "warning"):
                return
            failures[0] += 1
            if failures[0] > expected:
                complaints.append(f"console: {message.text}")

        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(f"script: {error}"))
        page.on("request", lambda r: complaints.append(f"asked {r.url}") if urlsplit(r.url).netloc != own else None)
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.goto(url)
        return page

    yield open_one
    while contexts:
        contexts.pop().close()
    assert not complaints
