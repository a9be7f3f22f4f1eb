"""Documents inside a message: known answers for the marks that people use, laws for any text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.wire.documents import stretches


def found(text: str) -> list[tuple[str | None, str]]:
    """(mark, text) of each stretch."""
    return [(stretch.mark, text[stretch.start : stretch.end]) for stretch in stretches(text)]


def bodies(text: str) -> list[tuple[str | None, str]]:
    """The same without the marks."""
    return [(stretch.mark, text[stretch.body : stretch.body_end]) for stretch in stretches(text) if stretch.mark]


ANTHROPIC = """Read these.

<documents>
<document index="1">
<source>a.pdf</source>
<document_content>
The bell is in Oslo.
</document_content>
</document>
<document index="2">
<source>b.pdf</source>
<document_content>It rang.</document_content>
</document>
</documents>

Where is it?"""


def test_tags_with_fields_inside_and_a_wrapper_around() -> None:
    assert [mark for mark, _ in found(ANTHROPIC)] == [None, "Document 1", "Document 2", None]
    assert found(ANTHROPIC)[0] == (None, "Read these.\n\n<documents>\n")
    assert found(ANTHROPIC)[2][1].endswith("</document>\n</documents>\n\n")
    assert found(ANTHROPIC)[3] == (None, "Where is it?")
    assert bodies(ANTHROPIC)[1][1].startswith("<source>b.pdf</source>")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # tags
        ("<doc>aaa</doc><doc>bbb</doc>", [("Document 1", "aaa"), ("Document 2", "bbb")]),
        ("<chunk id=7>a</chunk>\n<chunk id='8'>b</chunk>", [("Chunk 7", "a"), ("Chunk 8", "b")]),
        ("<context>All of it.</context> Why?", [("Context 1", "All of it.")]),
        ("<context>\n<doc>a</doc>\n</context>", [("Context 1", "<doc>a</doc>\n")]),  # one document is no list
        ("<doc>a<doc>b</doc>c</doc>", [("Document 1", "a<doc>b</doc>c")]),
        ("<Document>a</Document>", [("Document 1", "a")]),
        ("<document>never closed", []),
        ("</document> never opened", []),
        ("<doc>a<document>b</doc> c", [("Document 1", "a<document>b")]),
        # a tag that somebody made up is a block, and its name is not told
        ("<jane_doe_file>\nx\n</jane_doe_file>\n<refunds>y</refunds>", [("Block 1", "x\n"), ("Block 2", "y")]),
        ("use <mytag>x</mytag> so", []),
        ("<p>one</p>\n<p>two</p>\n<table><tr><td>1</td></tr></table>", []),  # a web page
        ("if a <b and c> d: List<String> x;", []),
        # lines
        ("Document 1: a.\nDocument 2: b.", [("Document 1", "a.\n"), ("Document 2", "b.")]),
        ("Source [2]:\nfoo\nSource [3]:\nbar", [("Source 2", "foo\n"), ("Source 3", "bar")]),
        ("Passage 3 - foo\nPassage 4 - bar", [("Passage 3", "foo\n"), ("Passage 4", "bar")]),
        (
            "### Document #1 (a.pdf)\nx\n\ny\n### Document #2 (b.pdf)\nz",
            [("Document 1", "x\n\ny\n"), ("Document 2", "z")],
        ),
        ("**Doc A:** x\n**Doc B:** y", [("Document A", "x\n"), ("Document B", "y")]),
        ("Quelle 1: x\nQuelle 2: y", [("Source 1", "x\n"), ("Source 2", "y")]),
        ("文档1：你好。\n文档2：再见。", [("Document 1", "你好。\n"), ("Document 2", "再见。")]),
        ("Document 20481: x\nDocument 20482: y", [("Document 1", "x\n"), ("Document 2", "y")]),  # long: an identifier?
        (
            "Example 1: a\nDocument 1: x\nDocument 2: y",
            [("Example 1", "a\n"), ("Document 1", "x\n"), ("Document 2", "y")],
        ),
        (
            "Document 1: a\nPage 1: x\nDocument 2: b\nPage 1: y",
            [("Document 1", "a\nPage 1: x\n"), ("Document 2", "b\nPage 1: y")],
        ),
        ("See document 1: it is long.", []),
        ("Section 3. Then go on.", []),
        ("<context>\nSource 1: a\nSource 2: b\n</context>", [("Source 1", "a\n"), ("Source 2", "b\n")]),
        # references
        ("[1] one\n[2] two", [("Reference 1", "one\n"), ("Reference 2", "two")]),
        ("[1] one\n[7] two", []),
        ("[1] one", []),
        # lists
        ('[{"a": 1, "b": [1, 2]}, {"a": "}"}]', [("Item 1", '{"a": 1, "b": [1, 2]}'), ("Item 2", '{"a": "}"}')]),
        ('{"results": [\n {"t": "x"},\n {"t": "y"}\n], "n": 2}', [("Item 1", '{"t": "x"}'), ("Item 2", '{"t": "y"}')]),
        ('["' + "a" * 30 + '", "' + "b" * 30 + '"]', [("Item 1", f'"{"a" * 30}"'), ("Item 2", f'"{"b" * 30}"')]),
        ('{"name": "Ann", "tags": ["a", "b"]}', []),
        ("[{]}, {", []),
        ("[1, 2, 3]", []),
        # sections
        ("# A\nfoo\n## a\n# B\nbar", [("Section 1", "foo\n## a\n"), ("Section 2", "bar")]),
        ("Intro\n# T\n## A\nx\n## B\ny", [("Section 1", ""), ("Section 2", "x\n"), ("Section 3", "y")]),
        ("a\n---\nb\n***\nc", [("Section 1", "a\n"), ("Section 2", "b\n"), ("Section 3", "c")]),
        ("# only one\ntext", []),
        ("```\n# x\n# y\n---\n<doc>a</doc>\nDocument 1: z\n```\n", []),  # code
        ("```\n# x\n\n# y\nnever closed", [("Section 1", ""), ("Section 2", "never closed")]),
        # nothing
        ("", []),
        (" \n", []),
        ("Just a question?", []),
    ],
)
def test_documents(text: str, expected: list[tuple[str, str]]) -> None:
    assert bodies(text) == expected


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Document 1: a.\nDocument 2: b.\nQuestion: why?", "Question: why?"),
        ("Document 1: a.\nDocument 2: b.\nWhy is that so", "Why is that so"),  # the others are of one line
        ("Document 1: a\nb\nDocument 2: c\nd\n\nWhy is that so", "Why is that so"),  # of one paragraph
        ("Document 1: a\n\nb\n\nDocument 2: c\n\nd\n\nWhy?", "Why?"),
        ("Document 1: a\n\nb\n\nDocument 2: c\n\nd\n\ne.", None),
        ("Document 1: a\n\nb\n\nWhy?\n", "Why?\n"),
        ("[1] a\n[2] b\n\n**Question:** why?", "**Question:** why?"),
    ],
)
def test_what_a_message_says_about_its_documents_is_not_part_of_the_last(text: str, rest: str | None) -> None:
    last_mark, last = found(text)[-1]
    assert (last if last_mark is None else None) == rest


PIECES = [
    "a", "Why?", " ", "\n", "\n\n", "\r\n", "<doc>", "</doc>", "<document index='1'>", "</document>", "<documents>",
    "</documents>", "\n<x>", "</x>", "<", ">", "\nDocument 1: ", "\nDocument 2", "\nSource [3]:", "\n[1] ", "\n[2] ",
    "\nQuestion:", "\n# H\n", "\n## h\n", "\n---\n", "\n```\n", "[", "]", "{", "}", '"', ",", '{"a": 1}', "世", "\x00",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=40)


@given(texts)
def test_stretches_cover_the_text_without_gaps(text: str) -> None:
    cover = stretches(text)
    if not text:
        assert cover == ()
        return
    assert (cover[0].start, cover[-1].end) == (0, len(text))
    assert all(a.end == b.start for a, b in pairwise(cover))
    for stretch in cover:
        assert stretch.start <= stretch.body <= stretch.body_end <= stretch.end
        assert stretch.start < stretch.end
        assert stretch.mark is None or stretch.mark.split(" ")[-1].isalnum()


@given(texts)
def test_a_mark_says_nothing_of_the_text(text: str) -> None:
    """Fixed words and short numbers: marks are kept when the content is erased."""
    for stretch in stretches(text):
        if stretch.mark:
            word, _, number = stretch.mark.rpartition(" ")
            assert word in {"Document", "Documents", "Source", "Reference", "Item", "Section", "Block"}
            assert number.isdigit()


HOSTILE = {
    "opening tags": "<doc>" * 40_000,
    "closing tags": "</doc>" * 40_000,
    "tags": "<doc>" * 20_000 + "</doc>" * 20_000,
    "other tags": "".join(f"<doc>\n<d{i}>" for i in range(10_000)) + "</doc>" * 10_000,
    "half tags": "<doc " * 40_000,
    "long attributes": "<doc " + "a" * 200_000,
    "lines": "Document 1:\n" * 20_000,
    "spaces": "Document" + " " * 200_000 + "1:",
    "spaces on lines": ("   " * 5 + "\n") * 20_000,
    "stars": "*" * 200_000,
    "brackets": "[" * 200_000,
    "openings": '[{"a": [' * 20_000,
    "open lists": '\n[{"a": 1}, ' * 20_000,
    "quotes": '\n[{"' * 20_000,
    "items": "[" + '{"a": 1}, ' * 20_000 + "{}]",
    "headings": "# a\n" * 40_000,
    "rules": "---\n" * 40_000,
    "dashes": "-" * 200_000 + "x",
    "fences": "```\n" * 40_001,
    "references": "".join(f"[{i % 1000}] a\n" for i in range(20_000)),
}


@pytest.mark.timeout(120)  # the bound: a quadratic pattern takes far longer, a slow machine does not
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_text_takes_long(text: str) -> None:
    assert all(0 <= one.start <= one.end <= len(text) for one in stretches(text))
