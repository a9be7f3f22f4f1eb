"""Messages, a chat template and a tokenizer that know nothing of each other -> segments as token ranges.

The laws hold for any texts, for any template made of separators that may trim the
texts, and for any tokens: such as split characters, join two words, or straddle
text and template.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spex_proxy.facts.errors import CannotExplain, PluginError
from spex_proxy.facts.exchange import Message, MessagePlace, Segmentation, TextRange, TokenizedExchange
from spex_proxy.wire.places import locate, marker
from spex_proxy.wire.tokens import align
from spex_proxy_standard.maskers import DeleteMasker
from tests.unit.examples import an_exchange, chat

TRIMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "strip": str.strip,
    "rstrip": str.rstrip,
    "lstrip": str.lstrip,
}


@dataclasses.dataclass(frozen=True)
class Template:
    """A chat template as far as it matters here: what stands around texts, and what it trims, by role."""

    head: str
    before: str
    after: str
    tail: str
    trims: tuple[str, ...]
    """For each message, one of TRIMS."""

    def render(self, texts: list[str]) -> str:
        bodies = (self.before + TRIMS[trim](text) + self.after for trim, text in zip(self.trims, texts, strict=True))
        return self.head + "".join(bodies) + self.tail

    def marked(self, texts: list[str]) -> str:
        """As marked_request() does it: an empty text stays empty."""
        return self.render([marker(number) if text else "" for number, text in enumerate(texts)])


PIECES = ["a", "B.", " ", "  ", "\n", "\r\n", "\t", "é", "e\u0301", "👩‍🚀", "世界", "<|im_end|>", "\u00a0", "x y"]
texts = st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), min_size=1, max_size=4)
frames = st.lists(st.sampled_from(["<|im_start|>", "user", "\n", " ", "a", "<|im_end|>", "☀"]), max_size=3).map("".join)


@st.composite
def templates(draw: st.DrawFn, count: int) -> Template:
    trims = draw(st.lists(st.sampled_from(sorted(TRIMS)), min_size=count, max_size=count))
    return Template(draw(frames), draw(frames), draw(frames), draw(frames), tuple(trims))


@st.composite
def prompts(draw: st.DrawFn) -> tuple[list[str], Template]:
    contents = draw(texts)
    return contents, draw(templates(len(contents)))


def users(contents: list[str]) -> list[Message]:
    return [Message("user", content) for content in contents]


@given(prompts())
@example((["x\n", " ", "y"], Template("", "", "\n", "", ("strip",) * 3)))  # "x\n" may end after x or after \n
@example((["a \n", "b"], Template("", "", "", "", ("rstrip", "lstrip"))))
def test_every_message_is_found(prompt: tuple[list[str], Template]) -> None:
    contents, template = prompt
    text, marked = template.render(contents), template.marked(contents)
    places = locate(text, marked, users(contents))
    assert len(places) == len(contents)
    rebuilt, reached = "", 0
    for number, (place, content) in enumerate(zip(places, contents, strict=True)):
        assert (place is None) == (content == "")
        if place is None:
            continue
        standing = text[place.start : place.end]
        assert standing.strip() == content.strip()
        assert content[place.trimmed :].startswith(standing)
        assert place.start >= reached
        rebuilt += text[reached : place.start] + marker(number)
        reached = place.end
    assert rebuilt + text[reached:] == marked  # all the rest is template, to the character


def test_a_message_that_the_template_leaves_out() -> None:
    marked = f"[{marker(1)}]"
    assert locate("[two]", marked, users(["one", "two"])) == (None, MessagePlace(1, 4))
    assert locate("[]", "[]", users(["one"])) == (None,)


@pytest.mark.parametrize(
    ("text", "marked", "culprit"),
    [
        ("[ONE][two]", f"[{marker(0)}][{marker(1)}]", 1),  # the template writes in capitals
        ("[one][tw]", f"[{marker(0)}][{marker(1)}]", 2),  # cuts
        ("[one][two two!]", f"[{marker(0)}][{marker(1)} {marker(1)}]", 2),
        ("<one][two]", f"[{marker(0)}][{marker(1)}]", 1),  # another frame for another text
        ("[one][two>", f"[{marker(0)}][{marker(1)}]", 2),
    ],
)
def test_a_template_that_does_more_than_trim(text: str, marked: str, culprit: int) -> None:
    with pytest.raises(CannotExplain, match=f"changes the text of message {culprit},"):
        locate(text, marked, users(["one", "two"]))


def test_a_template_that_changes_the_order() -> None:
    places = locate("[two][one]", f"[{marker(1)}][{marker(0)}]", users(["one", "two"]))
    assert places == (MessagePlace(6, 9), MessagePlace(1, 4))


def test_a_text_that_stands_twice_has_no_place() -> None:
    """Masking one of them would leave the other for the model to read."""
    places = locate("[one][two two]", f"[{marker(0)}][{marker(1)} {marker(1)}]", users(["one", "two"]))
    assert places == (MessagePlace(1, 4), None)


# --- tokens


@st.composite
def tokenised(draw: st.DrawFn) -> tuple[list[str], list[TextRange], TokenizedExchange]:
    """Texts, ranges that a segmenter may choose, and tokens that fall as they like."""
    contents, template = draw(prompts())
    text = template.render(contents)
    owners = [number for number, character in enumerate(text) for _ in character.encode()]
    edges = sorted({0, len(owners), *draw(st.lists(st.integers(0, len(owners)), max_size=24))})
    offsets: list[tuple[int, int]] = [(0, 0)] if draw(st.booleans(), label="a token of no characters first") else []
    for start, end in pairwise(edges):
        offsets.append((owners[start], owners[end - 1] + 1))
        if draw(st.integers(0, 9), label="another one behind") == 0:
            offsets.append((offsets[-1][1], offsets[-1][1]))
    ranges = []
    for number, content in enumerate(contents):
        cuts = sorted({0, len(content), *draw(st.lists(st.integers(0, len(content)), max_size=5))})
        ranges += [TextRange(number, a, b) for a, b in pairwise(cuts) if draw(st.integers(0, 5)) > 0]
    tokens = TokenizedExchange(
        prompt_ids=tuple(range(1000, 1000 + len(offsets))),
        prompt_text=text,
        offsets=tuple(offsets),
        places=locate(text, template.marked(contents), users(contents)),
        output_ids=(7,),
        ids_source="render",
    )
    return contents, ranges, tokens


def owner_of(token: int, ranges: list[TextRange], tokens: TokenizedExchange) -> TextRange | None:
    """The rule, in plain words: the range that holds the token's last character, if no template is in the token."""
    start, end = tokens.offsets[token]
    for piece in ranges:
        place = tokens.places[piece.message]
        if place is None or not place.start <= start < end <= place.end:
            continue
        if piece.start <= end - 1 - place.start + place.trimmed < piece.end:
            return piece
    return None


@given(tokenised())
def test_segments_are_disjoint_in_order_and_never_template(case: tuple[list[str], list[TextRange], Any]) -> None:
    contents, ranges, tokens = case
    segments = align("any", ranges, chat(*contents), tokens).segments
    reached = 1  # the first token is nobody's
    for segment in segments:
        assert reached <= segment.token_start < segment.token_end <= len(tokens.prompt_ids)
        reached = segment.token_end
        place = tokens.places[segment.message]
        assert place is not None
        for start, end in tokens.offsets[segment.token_start : segment.token_end]:
            assert place.start <= start
            assert end <= place.end
    characters = [(segment.message, segment.char_start, segment.char_end) for segment in segments]
    assert all(start < end <= len(contents[message]) for message, start, end in characters)
    assert all(a[0] < b[0] or a[2] <= b[1] for a, b in pairwise(characters))


@given(tokenised())
def test_each_token_is_whose_last_character_it_holds(case: tuple[list[str], list[TextRange], Any]) -> None:
    contents, ranges, tokens = case
    segments = align("any", ranges, chat(*contents), tokens).segments
    for token in range(1, len(tokens.offsets)):
        if tokens.offsets[token][0] == tokens.offsets[token][1]:
            continue  # holds no character
        mine = [s for s in segments if s.token_start <= token < s.token_end]
        piece = owner_of(token, ranges, tokens)
        if piece is None:
            assert mine == []
        else:
            assert [(s.message, s.char_start <= piece.start, piece.end <= s.char_end) for s in mine] == [
                (piece.message, True, True)
            ]


@given(tokenised(), st.randoms(use_true_random=False))
def test_masking_gives_back_the_prompt_or_takes_segments_out_of_it(
    case: tuple[list[str], list[TextRange], Any], dice: Any
) -> None:
    contents, ranges, tokens = case
    players = align("any", ranges, chat(*contents), tokens)
    masker = DeleteMasker()
    assert masker.apply(tokens.prompt_ids, players, np.ones(len(players), dtype=bool)) == tokens.prompt_ids
    mask = np.array([dice.random() < 0.5 for _ in players.segments], dtype=bool)
    gone = {
        token
        for segment, is_kept in zip(players.segments, mask, strict=True)
        for token in range(segment.token_start, segment.token_end)
        if not is_kept
    }
    expected = tuple(token for number, token in enumerate(tokens.prompt_ids) if number not in gone)
    assert masker.apply(tokens.prompt_ids, players, mask) == expected


def laid_out(text: str, offsets: list[tuple[int, int]], *places: MessagePlace | None) -> TokenizedExchange:
    return TokenizedExchange(tuple(range(len(offsets))), text, tuple(offsets), places, (7,), "render")


def shape(players: Segmentation) -> list[tuple[int, int, int, int, int]]:
    return [(s.message, s.char_start, s.char_end, s.token_start, s.token_end) for s in players.segments]


def test_known_answer() -> None:
    """`<u>The cat. Sat.</u>` in tokens <u>|The|·cat|.·S|at|.|</u>: the straddling one goes with the second."""
    exchange = an_exchange(messages=(Message("tool", "The cat. Sat.", "search"),))
    offsets = [(0, 3), (3, 6), (6, 10), (10, 13), (13, 15), (15, 16), (16, 20)]
    tokens = laid_out("<u>The cat. Sat.</u>", offsets, MessagePlace(3, 16))
    players = align("sentence", [TextRange(0, 0, 9), TextRange(0, 9, 13)], exchange, tokens)
    assert players.method == "sentence"
    assert shape(players) == [(0, 0, 9, 1, 3), (0, 9, 13, 3, 6)]
    assert {(s.role, s.provenance) for s in players.segments} == {("tool", "tool")}  # no name: it is content


def test_the_first_token_of_a_bare_prompt_is_nobodys() -> None:
    tokens = laid_out("The cat", [(0, 3), (3, 7)], MessagePlace(0, 7))
    players = align("word", [TextRange(0, 0, 4), TextRange(0, 4, 7)], chat("The cat"), tokens)
    assert shape(players) == [(0, 4, 7, 1, 2)]


def test_a_token_of_no_characters_behind_a_text_is_template() -> None:
    """Some tokenizers give special tokens no characters of their own."""
    tokens = laid_out("<a>", [(0, 1), (1, 2), (2, 2), (2, 3)], MessagePlace(1, 2))
    assert shape(align("m", [TextRange(0, 0, 1)], chat("a"), tokens)) == [(0, 0, 1, 1, 2)]


def test_a_range_without_a_token_joins_the_one_before_it() -> None:
    tokens = laid_out("<ab c>", [(0, 1), (1, 3), (3, 5), (5, 6)], MessagePlace(1, 5))
    ranges = [TextRange(0, 0, 2), TextRange(0, 2, 3), TextRange(0, 3, 4)]
    assert shape(align("m", ranges, chat("ab c"), tokens)) == [(0, 0, 3, 1, 2), (0, 3, 4, 2, 3)]


def test_trimmed_text_and_tokens_that_reach_into_the_template() -> None:
    """`[hi.]` was `  hi.  `; the tokenizer joins the stop and the bracket behind it."""
    tokens = laid_out("[hi.]", [(0, 1), (1, 3), (3, 5)], MessagePlace(1, 4, trimmed=2))
    assert shape(align("m", [TextRange(0, 0, 7)], chat("  hi.  "), tokens)) == [(0, 0, 7, 1, 2)]


def test_a_range_of_trimmed_space_does_not_reach_into_the_next_message() -> None:
    tokens = laid_out("<a|b>", [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], MessagePlace(1, 2), MessagePlace(3, 4))
    ranges = [TextRange(0, 0, 1), TextRange(0, 1, 4), TextRange(0, 4, 9), TextRange(1, 0, 1)]
    assert shape(align("m", ranges, chat("a        ", "b"), tokens)) == [(0, 0, 9, 1, 2), (1, 0, 1, 3, 4)]


def test_a_message_that_was_left_out_has_no_players() -> None:
    tokens = laid_out("<b>", [(0, 1), (1, 2), (2, 3)], None, MessagePlace(1, 2))
    assert shape(align("m", [TextRange(0, 0, 1), TextRange(1, 0, 1)], chat("a", "b"), tokens)) == [(1, 0, 1, 1, 2)]


@pytest.mark.parametrize(
    "ranges",
    [
        [TextRange(0, 0, 0)],
        [TextRange(0, 2, 1)],
        [TextRange(0, -1, 1)],
        [TextRange(0, 0, 4)],
        [TextRange(2, 0, 1)],
        [TextRange(-1, 0, 1)],
        [TextRange(0, 0, 2), TextRange(0, 1, 3)],
        [TextRange(0, 1, 2), TextRange(0, 0, 1)],
        [TextRange(1, 0, 1), TextRange(0, 0, 1)],
        [(0, 0, 1)],
        None,
        iter([TextRange(0, 0, 1)]),
    ],
    ids=lambda given: "an iterator" if hasattr(given, "__next__") else str(given),
)
def test_a_segmenter_that_breaks_its_contract_is_named(ranges: Any) -> None:
    tokens = laid_out("<abc|abc>", [(0, 1), (1, 4), (5, 8)], MessagePlace(1, 4), MessagePlace(5, 8))
    with pytest.raises(PluginError, match="the segmenter 'strange' broke its contract"):
        align("strange", ranges, chat("abc", "abc"), tokens)
