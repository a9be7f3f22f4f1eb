"""Token strings and render replies -> which characters each token covers."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.errors import BadReply, CannotExplain
from spex_proxy.wire.tokens import offsets_from_strings, read_render, render_body

# What vLLM 0.32 answered for SmolLM2: /tokenize's strings, and the render route's offsets of the same prompt.
TEXT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nHi 👩‍🚀 é\r\nok<|im_end|>\n<|im_start|>assistant\n"
)
SAID = (
    "<|im_start|> system Ċ You Ġare Ġa Ġhelpful ĠAI Ġassistant Ġnamed ĠSm ol LM , Ġtrained Ġby ĠH ugging ĠFace "
    "<|im_end|> Ċ <|im_start|> user Ċ Hi ĠðŁ ĳ © âĢ į ðŁ ļ Ģ ĠÃ© č Ċ ok <|im_end|> Ċ <|im_start|> ass istant Ċ"
)
STRINGS = SAID.split(" ")
ENDS = (
    "12 18 19 22 26 28 36 39 49 55 58 60 62 63 71 74 76 82 87 97 98 110 114 115 117 "
    "119 119 119 120 120 121 121 121 123 124 125 127 137 138 150 153 159 160"
)


def byte_characters() -> dict[int, str]:
    """GPT-2's table, from its definition in the paper's code: bytes that print stand for themselves."""
    table: dict[int, str] = {}
    for byte in range(256):
        prints = 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255
        table[byte] = chr(byte) if prints else chr(256 + sum(1 for code in table.values() if ord(code) >= 256))
    return table


BYTES = byte_characters()


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted({position % (len(data) + 1) for position in at}), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if end > start]


def covered(pieces: list[bytes], text: str) -> list[tuple[int, int]]:
    """The slow, plain way: a token covers every character of which it holds a byte."""
    owners = [number for number, character in enumerate(text) for _ in character.encode()]
    position, out = 0, []
    for piece in pieces:
        mine = owners[position : position + len(piece)]
        position += len(piece)
        out.append((mine[0], mine[-1] + 1))
    return out


def test_vllms_own_offsets_are_found_again_from_its_token_strings() -> None:
    offsets = offsets_from_strings(STRINGS, TEXT)
    assert [end for _, end in offsets] == [int(end) for end in ENDS.split()]
    assert offsets[25:34] == (
        (117, 119), (118, 119), (118, 119), (119, 120), (119, 120), (120, 121), (120, 121), (120, 121), (121, 123),
    )  # fmt: skip


@given(st.text(max_size=30), st.lists(st.integers(0, 200), max_size=20))
def test_byte_level_tokens_cut_anywhere(text: str, at: list[int]) -> None:
    """Emoji, combining marks, CRLF; tokens that hold half a character."""
    pieces = cut(text.encode(), at)
    strings = ["".join(BYTES[byte] for byte in piece) for piece in pieces]
    assert list(offsets_from_strings(strings, text)) == covered(pieces, text)


@given(st.text("ab é☀🚀\n世", max_size=20), st.data())
def test_sentence_piece_with_byte_fallback(text: str, data: st.DataObject) -> None:
    strings: list[str] = []
    pieces: list[bytes] = []
    for character in text:
        if data.draw(st.booleans(), label="in the vocabulary"):
            strings.append(character.replace(" ", "▁"))
            pieces.append(character.encode())
        else:
            strings.extend(f"<0x{byte:02X}>" for byte in character.encode())
            pieces.extend(bytes([byte]) for byte in character.encode())
    assert list(offsets_from_strings(strings, text)) == covered(pieces, text)


def test_sentence_piece_known_answer() -> None:
    strings = ["<s>", "▁Grüße", "▁an", "▁", "<0xF0>", "<0x9F>", "<0x9A>", "<0x80>", "<0x0A>"]
    assert offsets_from_strings(strings, "<s> Grüße an 🚀\n") == (
        (0, 3), (3, 9), (9, 12), (12, 13), (13, 14), (13, 14), (13, 14), (13, 14), (14, 15),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("strings", "text"),
    [
        (["Hello"], "Hello!"),
        (["Hello", "!"], "Hello"),
        ([], "x"),
        (["▁Hello"], "Hello"),  # SentencePiece's dummy prefix: not in the text, so nothing is guessed
        (["<0xZZ>"], "Z"),
        (["[UNK]"], "☃"),
    ],
)
def test_strings_that_do_not_spell_the_prompt(strings: list[str], text: str) -> None:
    with pytest.raises(CannotExplain, match="do not spell the prompt"):
        offsets_from_strings(strings, text)


def test_no_tokens_for_no_text() -> None:
    assert offsets_from_strings([], "") == ()


# --- the render route


@pytest.mark.parametrize("wrapped", [False, True], ids=["chat: an object", "completion: a list of one"])
def test_a_render_reply(wrapped: bool) -> None:
    reply: dict[str, Any] = {"token_ids": [1, 7], "token_offsets": [[0, 2], [2, 5]], "features": None}
    assert read_render([reply] if wrapped else reply) == ((1, 7), ((0, 2), (2, 5)))


GOOD_IDS = [1, 2]


@pytest.mark.parametrize(
    "reply",
    [
        None,
        "ids",
        [],
        [{"token_ids": [1], "token_offsets": [[0, 1]]}, {"token_ids": [1], "token_offsets": [[0, 1]]}],
        {},
        {"token_ids": None, "token_offsets": []},
        {"token_ids": ["1", "2"], "token_offsets": [[0, 1], [1, 2]]},
        {"token_ids": [True, 2], "token_offsets": [[0, 1], [1, 2]]},
        {"token_ids": GOOD_IDS},
        {"token_ids": GOOD_IDS, "token_offsets": None},  # a slow tokenizer
        {"token_ids": GOOD_IDS, "token_offsets": [[0, 1]]},
        {"token_ids": GOOD_IDS, "token_offsets": [[0, 1], None]},
        {"token_ids": GOOD_IDS, "token_offsets": [[0, 1], [1]]},
        {"token_ids": GOOD_IDS, "token_offsets": [[0, 1], [1, "2"]]},
        {"token_ids": GOOD_IDS, "token_offsets": [[0, 1], [1, 2.5]]},
    ],
)
def test_a_render_reply_that_lacks_something(reply: Any) -> None:
    with pytest.raises(BadReply, match="render route"):
        read_render(reply)


def test_what_is_sent_to_the_render_route() -> None:
    request = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "function"}],
        "chat_template_kwargs": {"enable_thinking": False},
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }
    before = copy.deepcopy(request)
    body = render_body(request)
    assert body.pop("return_token_offsets") is True
    assert set(request) - set(body) == {
        "stream", "stream_options", "return_token_ids", "return_tokens_as_token_ids",
    }  # fmt: skip
    assert all(body[key] == request[key] for key in body)
    assert request == before
