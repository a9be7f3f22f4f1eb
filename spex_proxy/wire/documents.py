"""Documents inside a message, found by the marks that people put around and before them.

In the order of trust: tags (`<document>...</document>`), lines (`Document 1:`), numbered
references (`[1] ...`), the items of a JSON list; outside of those Markdown headings, and rules
where there are no headings. What is found is a guess about meaning, but never about text:
the stretches of a message cover it without gaps, whatever the text is.

Linear in the length of the text: no pattern here repeats what itself may repeat.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from spex_proxy.wire.json_lists import json_items
from spex_proxy.wire.marks import (
    CLOSING,
    DOCUMENT_LINE,
    HEADING,
    REFERENCE,
    RULE,
    Element,
    elements,
    fences,
    is_fenced,
    number_in,
    word_for,
)

DEEPEST = 5
"""Tags that are nested deeper are text."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Characters [start, end) of a message: a document, or what stands between documents."""

    start: int
    body: int
    """Where its mark ends and its text begins."""
    body_end: int
    """Where its text ends and its closing mark begins."""
    end: int
    mark: str | None
    """For people, made of a fixed word and a number, never of the text: `Document 2`. None: no document."""
    is_weak: bool = False
    """True of marks that don't show what is around them to be a mere wrapper."""


def stretches(text: str) -> tuple[Stretch, ...]:
    """A message cut into documents and what stands between them; empty for an empty text."""
    fenced = fences(text)
    root = Element("", "", 0, 0, len(text), len(text), elements(text, fenced))
    found = _inside(text, root, fenced, 0)
    numbered = _numbered(found)
    return tuple(_covering(text, numbered))


def _inside(text: str, element: Element, fenced: Sequence[tuple[int, int]], depth: int) -> list[Stretch]:
    """The documents in an element, without the element itself."""
    found: list[Stretch] = []
    reached = element.body
    names = Counter(child.name for child in element.children)
    for child in element.children if depth < DEEPEST else ():
        found += _between(text, reached, child.start, fenced, depth)
        inner = _inside(text, child, fenced, depth + 1)
        if sum(not stretch.is_weak for stretch in inner) >= 2:
            is_last = not text[inner[-1].end : child.body_end].strip()  # then the end tag goes with it
            found += [*inner[:-1], replace(inner[-1], end=child.end if is_last else inner[-1].end)]
        else:
            mark = f"{word_for(child.name)} {number_in(child.attributes) or ''}".rstrip()
            is_weak = child.is_field and names[child.name] == 1
            found.append(Stretch(child.start, child.body, child.body_end, child.end, mark, is_weak))
        reached = child.end
    return found + _between(text, reached, element.body_end, fenced, depth)


def _between(text: str, start: int, end: int, fenced: Sequence[tuple[int, int]], depth: int) -> list[Stretch]:
    """The documents in a text without tags. Sections count only where nothing is around them."""
    if end - start < 2:
        return []
    return (
        _after_lines(text, start, end, fenced)
        or _references(text, start, end, fenced)
        or [Stretch(a, a, b, c, "Item") for a, b, c in json_items(text, start, end)]
        or (_sections(text, start, end, fenced) if depth == 0 else [])
    )


# ------------------------------------------------------------------------------------ marks on lines


def _after_lines(text: str, start: int, end: int, fenced: Sequence[tuple[int, int]]) -> list[Stretch]:
    """Documents that begin with a line such as `Document 1:`."""
    found = _lines(DOCUMENT_LINE, text, start, end, fenced)
    lines: dict[str, list[re.Match[str]]] = {}
    for line in found:
        lines.setdefault(word_for(line["word"]), []).append(line)
    documents: list[Stretch] = []
    last = -1
    for word, of_word in lines.items():  # one word after another; those between the first's are text
        if of_word[0].start() > last and (len(of_word) > 1 or of_word[0]["stop"] in (":", "：")):
            last = of_word[-1].start()
            documents += _run(text, end, of_word, [f"{word} {line['number']}" for line in of_word])
    limits = [document.start for document in documents[1:]] + [end]
    return [
        replace(document, end=min(document.end, limit), body_end=min(document.body_end, limit))
        for document, limit in zip(documents, limits, strict=False)
    ]


def _references(text: str, start: int, end: int, fenced: Sequence[tuple[int, int]]) -> list[Stretch]:
    """`[1] ...`, `[2] ...`: at least two, counting up by one."""
    found = _lines(REFERENCE, text, start, end, fenced)
    numbers = [int(line["number"]) for line in found]
    if len(found) < 2 or any(b - a != 1 for a, b in pairwise(numbers)):
        return []
    return _run(text, end, found, [f"Reference {number}" for number in numbers])


def _lines(
    pattern: re.Pattern[str], text: str, start: int, end: int, fenced: Sequence[tuple[int, int]]
) -> list[re.Match[str]]:
    return [line for line in pattern.finditer(text, start, end) if not is_fenced(line.start(), fenced)]


def _run(text: str, end: int, lines: Sequence[re.Match[str]], marks: Sequence[str]) -> list[Stretch]:
    """Documents that each reach to the next one's mark."""
    starts = [line.start("mark") for line in lines]
    limits = [*starts[1:], end]
    bodies = [_after_space(text, line.end(), limit) for line, limit in zip(lines, limits, strict=True)]
    limits[-1] = _last_end(text, list(zip(bodies, limits, strict=True)))
    return [
        Stretch(start, body, limit, limit, mark)
        for start, body, limit, mark in zip(starts, bodies, limits, marks, strict=True)
    ]


def _last_end(text: str, bodies: Sequence[tuple[int, int]]) -> int:
    """Where the last document ends and what the message says about the documents begins.

    At a line such as `Question:`; else the last one is taken to be like those before it: of one
    line, or of one paragraph; else a last paragraph that asks something is not part of it.
    """
    start, end = bodies[-1]
    if closing := CLOSING.search(text, start, end):
        end = closing.start()
    before = [text[a:b].strip() for a, b in bodies[:-1]]
    for gap in ("\n", "\n\n"):
        if before and not any(gap in body for body in before):
            at = text.find(gap, start, end)
            return at + len(gap) if at >= 0 else end
    at = text.rfind("\n\n", start, len(text[:end].rstrip()))
    return at + 2 if at >= 0 and text[at:end].rstrip().endswith(("?", "？")) else end


def _sections(text: str, start: int, end: int, fenced: Sequence[tuple[int, int]]) -> list[Stretch]:
    """Parts under Markdown headings of the highest level that occurs twice; else parts between rules."""
    headings = _lines(HEADING, text, start, end, fenced)
    levels = Counter(len(line["level"]) for line in headings)
    top = min((level for level, count in levels.items() if count > 1), default=0)
    cuts = [line for line in headings if len(line["level"]) <= top] or _lines(RULE, text, start, end, fenced)
    if not cuts:
        return []
    starts = [line.start("mark") for line in cuts]
    sections = [
        Stretch(start_, _after_space(text, line.end(), limit), limit, limit, "Section")
        for start_, line, limit in zip(starts, cuts, [*starts[1:], end], strict=True)
    ]
    if cuts[0].re is RULE and text[start : starts[0]].strip():
        sections.insert(0, Stretch(start, start, starts[0], starts[0], "Section"))
    return sections


def _after_space(text: str, position: int, limit: int) -> int:
    return limit - len(text[position:limit].lstrip())


# ------------------------------------------------------------------------------------ the whole text


def _numbered(found: Sequence[Stretch]) -> Iterator[Stretch]:
    """Marks without a number of their own are counted, each word for itself."""
    counts: Counter[str] = Counter()
    for stretch in found:
        word, _, number = (stretch.mark or "").rpartition(" ")
        if not word or not _is_number(number):
            word, number = stretch.mark or "", ""
        counts[word] += 1
        is_short = number and len(number) <= 3
        yield replace(stretch, mark=f"{word} {number.upper() if is_short else counts[word]}")


def _is_number(text: str) -> bool:
    return text.isdigit() or len(text) == 1


def _covering(text: str, found: Iterator[Stretch]) -> Iterator[Stretch]:
    """The documents and what is between them; white space and bare punctuation join their neighbour."""
    last: Stretch | None = None
    reached = 0
    for stretch in [*found, None]:
        until = stretch.start if stretch else len(text)
        if last:
            reached = until if not _says_something(text[reached:until]) else _after_space(text, reached, until)
            yield replace(last, end=reached)
        if stretch and not last and not _says_something(text[:until]):
            last = replace(stretch, start=0)
        else:
            if until > reached:
                yield Stretch(reached, reached, until, until, None)
            last = stretch
        reached = stretch.end if stretch else until


def _says_something(text: str) -> bool:
    return any(character.isalnum() for character in text)
