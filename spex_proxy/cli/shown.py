"""What others wrote, and addresses, made fit for a terminal: nothing in it is obeyed, no password is shown."""

from __future__ import annotations

import re

from rich.markup import escape
from rich.text import Text

_PASSWORD = re.compile(r"(://[^/?#,\s:@]*):[^/?#,\s]*@")
_TOKEN = re.compile(r"(\bhttps?://)[^/?#,\s:@]+@")
INDENT = "  "


def line(text: str, style: str = "") -> Text:
    """On one line: a name with line ends in it is still one name."""
    return Text(" ".join(_harmless(text).split()), style)


def block(text: str) -> Text:
    """With its line ends, for a cell of a table: there they can't reach the left edge."""
    return Text(_harmless(text))


def paragraph(message: str) -> str:
    """Markup of a message that may quote others: lines but its first are indented, so that none looks like ours."""
    first, *rest = _harmless(without_password(message)).split("\n")
    return escape("\n".join((first, *(one if one.startswith(INDENT) else INDENT + one for one in rest))))


def without_password(text: str) -> str:
    """Any text with addresses in it: `user:***@host`, and `***@host` where a token stands before an http host."""
    return _TOKEN.sub(r"\1***@", _PASSWORD.sub(r"\1:***@", text))


def _harmless(text: str) -> str:
    from spex_proxy.study.terminal import harmless

    return harmless(text)
