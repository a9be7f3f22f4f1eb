"""The marks by which documents inside a message are known: words, tags, lines, code fences."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

_SAME = {
    "doc": "document", "docs": "document", "dokument": "document", "documento": "document", "文档": "document",
    "文書": "document", "资料": "document", "資料": "document", "quelle": "source", "fuente": "source",
    "来源": "source", "ref": "reference", "citation": "reference", "search result": "result",
    "search_result": "result", "retrieved document": "document", "extract": "excerpt", "kapitel": "chapter",
    "beispiel": "example", "ejemplo": "example",
}  # fmt: skip
_LINE_WORDS = (
    "retrieved document", "search result", "document", "dokument", "documento", "doc", "source", "quelle", "fuente",
    "passage", "context", "chunk", "article", "snippet", "excerpt", "extract", "reference", "ref", "citation",
    "result", "page", "section", "chapter", "kapitel", "text", "example", "beispiel", "ejemplo", "file",
    "attachment", "email", "message", "review", "comment", "post", "ticket", "record", "entry", "item", "evidence",
    "fact", "note", "memory", "abstract", "paper", "文档", "文書", "资料", "資料", "来源",
)  # fmt: skip


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BLOCK_TAGS = _words(
    "document documents doc docs context contexts passage passages chunk chunks snippet excerpt article sources "
    "reference references results result search_result search_results page file files attachment email example "
    "examples item record entry note memory fact evidence query question instruction instructions task rules "
    "user_query user_input input tool_result observation data knowledge history conversation"
)
"""Tags whose text is a block of its own, wherever they stand."""
_FIELD_TAGS = _words(
    "source title url id metadata meta content document_content page_content text author date name summary body "
    "score type index"
)
"""Tags that say something of what is around them. Two of one name are blocks all the same."""
_HTML_TAGS = _words(
    "a abbr address aside audio b base blockquote body br button canvas caption center cite code col colgroup dd del "
    "details dfn div dl dt em fieldset figcaption figure font footer form h1 h2 h3 h4 h5 h6 head header hr html i "
    "iframe img ins kbd label legend li link main map mark menu nav ol optgroup option p param picture pre q s "
    "samp script select small span strike strong style sub summary sup svg table tbody td template textarea tfoot "
    "th thead time title tr tt u ul var video path g think thinking"
)
"""Tags of web pages, and of a model's thoughts: they are part of a text, not around it."""

_WORDS = "|".join(_LINE_WORDS)
DOCUMENT_LINE = re.compile(
    rf"""^[ \t]{{0,12}}(?P<mark>[>#*_•-]{{0,6}}[ \t]{{0,3}}[*_\[(【]{{0,3}}
        (?P<word>{_WORDS})[ \t]{{0,3}}(?:no\.|nr\.|number)?[ \t]{{0,3}}[:#]?[ \t]{{0,3}}[\[(#【]?
        (?P<number>\d{{1,6}}|(?-i:[A-Z]))[\])】]?[*_]{{0,3}}
        (?:[ \t]{{0,3}}[(\[][^()\[\]\n]{{0,120}}[)\]])?[*_]{{0,3}}[ \t]{{0,3}})
        (?P<stop>[:：.\])–—|>-]|$)[*_]{{0,3}}""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
REFERENCE = re.compile(r"^[ \t]{0,8}(?P<mark>[\[【](?P<number>\d{1,3})[\]】])(?=[ \t:.])[:.]?", re.MULTILINE)
HEADING = re.compile(r"^(?P<mark>(?P<level>\#{1,6})[ \t]+\S[^\n]*)$", re.MULTILINE)
RULE = re.compile(r"^[ ]{0,3}(?P<mark>-{3,}|\*{3,}|_{3,}|={3,})[ \t]*$", re.MULTILINE)
CLOSING = re.compile(
    r"^[ \t]{0,8}[#*_]{0,4}[ ]?(?:(?:the |user'?s? )?(?:question|query|request|task|instructions?)|q|answer|frage"
    r"|aufgabe|pregunta|问题|質問)(?:[ ]?\d{1,2})?[*_]{0,3}[ ]?[:：]",
    re.MULTILINE | re.IGNORECASE,
)

_TAG = re.compile(r"<(?P<close>/?)(?P<name>[A-Za-z][\w.-]{0,40})(?P<attributes>\s[^<>]{0,300})?>")
_NUMBER = re.compile(r"""\b(?:index|id|number|nr|no|n|i)\s{0,3}=\s{0,3}["']?(\d{1,3})\b""")
_FENCE = re.compile(r"^[ ]{0,3}(?P<fence>`{3,}|~{3,})(?P<rest>[^\n]*)$", re.MULTILINE)


def word_for(name: str) -> str:
    """The word for people: of a known mark, its own; of a tag that somebody made up, none of theirs."""
    plain = name.lower()
    if plain not in _LINE_WORDS and plain not in _BLOCK_TAGS and plain not in _FIELD_TAGS:
        return "Block"
    return _SAME.get(plain, plain).replace("_", " ").capitalize()


def number_in(attributes: str) -> str | None:
    """The number that a tag carries: `<document index="2">`."""
    found = _NUMBER.search(attributes)
    return found[1] if found else None


@dataclass(slots=True)
class Element:
    """A tag with its end tag, and those inside it."""

    name: str
    attributes: str
    start: int
    body: int
    body_end: int
    end: int
    children: list[Element] = field(default_factory=list)

    @property
    def is_field(self) -> bool:
        return self.name in _FIELD_TAGS or self.name not in _BLOCK_TAGS


def elements(text: str, fenced: Sequence[tuple[int, int]]) -> list[Element]:
    """The outermost elements that may be documents, with those inside them as children."""
    pairs = sorted(_pairs(text, fenced), key=lambda element: (element.start, -element.end))
    roots: list[Element] = []
    open_: list[Element] = []
    for element in pairs:
        while open_ and open_[-1].end <= element.start:
            open_.pop()
        (open_[-1].children if open_ else roots).append(element)
        open_.append(element)
    return roots


def _pairs(text: str, fenced: Sequence[tuple[int, int]]) -> list[Element]:
    pairs: list[Element] = []
    open_: list[re.Match[str]] = []
    waiting: dict[str, int] = {}  # name -> how many of it are open: an end tag without one is text
    for tag in _TAG.finditer(text):
        name = tag["name"].lower()
        if (tag["attributes"] or "").endswith("/") or is_fenced(tag.start(), fenced):
            continue
        if not tag["close"]:
            if _may_mark(text, tag, name):
                open_.append(tag)
                waiting[name] = waiting.get(name, 0) + 1
        elif waiting.get(name):
            while True:  # what was opened inside and never closed is text
                opening = open_.pop()
                waiting[opening["name"].lower()] -= 1
                if opening["name"].lower() == name:
                    break
            body = opening.end()
            while body < tag.start() and text[body].isspace():
                body += 1
            attributes = opening["attributes"] or ""
            pairs.append(Element(name, attributes, opening.start(), body, tag.start(), tag.end()))
    return pairs


def _may_mark(text: str, tag: re.Match[str], name: str) -> bool:
    """Known tags anywhere; others at the beginning of a line, if they are no web page's."""
    if name in _BLOCK_TAGS or name in _FIELD_TAGS:
        return name not in _HTML_TAGS or name == "summary"
    line = text.rfind("\n", max(0, tag.start() - 9), tag.start()) + 1
    is_line_start = not text[line : tag.start()].strip() if line or tag.start() < 9 else False
    return is_line_start and name not in _HTML_TAGS


def fences(text: str) -> list[tuple[int, int]]:
    """Fenced code blocks, characters [start, end); one that is never closed is none."""
    blocks: list[tuple[int, int]] = []
    opening: re.Match[str] | None = None
    for line in _FENCE.finditer(text):
        if opening is None:
            opening = line
        elif line["fence"].startswith(opening["fence"]) and not line["rest"].strip():
            blocks.append((opening.start(), line.end()))
            opening = None
    return blocks


def is_fenced(position: int, fenced: Sequence[tuple[int, int]]) -> bool:
    at = bisect_right(fenced, (position, len(fenced) and fenced[-1][1] + 1))
    return at > 0 and position < fenced[at - 1][1]
