"""What goes into a blob comes out again, bit by bit; what was damaged says so."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spex_proxy.facts.errors import SpexError, VerificationFailed
from spex_proxy.facts.evidence import Block
from spex_proxy.facts.exchange import (
    Choice,
    Exchange,
    Message,
    MessagePlace,
    Segment,
    Segmentation,
    TokenizedExchange,
    ToolCall,
)
from spex_proxy.facts.explanation import Fidelity
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.store import codec
from spex_proxy.wire.terms import words

ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)
ANY_TEXT = st.text(st.characters(codec=None))  # lone surrogates included: JSON can spell them
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=10,
)
IDS = st.lists(st.integers(0, 200_000), max_size=5).map(tuple)
PLACES = st.builds(
    MessagePlace, st.integers(0, 99), st.integers(0, 99), st.integers(0, 9), st.sampled_from(["plain", "json", "whole"])
)
SEGMENTS = st.builds(Segment, *[st.integers(0, 999)] * 5, st.just("user"), ANY_TEXT)
KINDS = st.sampled_from(["text", "tool_definition", "tool_call"])
MESSAGES = st.lists(
    st.builds(Message, ANY_TEXT, ANY_TEXT, st.none() | ANY_TEXT, KINDS, st.none() | st.integers(1, 9)), max_size=3
).map(tuple)


@st.composite
def spectra(draw: st.DrawFn) -> Spectrum:
    n = draw(st.integers(1, 130))
    terms = draw(st.sets(st.frozensets(st.integers(0, n - 1), max_size=4), max_size=8))
    numbers = st.lists(ANY_FLOAT, min_size=len(terms), max_size=len(terms))
    return Spectrum.from_terms(n, [tuple(t) for t in terms], draw(numbers), draw(st.none() | numbers))


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    m, n, k = draw(st.integers(1, 5)), draw(st.integers(1, 20)), draw(st.integers(0, 4))
    return Block(
        number=draw(st.integers(0, 1000)),
        masks=draw(hnp.arrays(np.bool_, (m, n))),
        replicates=draw(hnp.arrays(np.int64, m, elements=st.integers(0, 9))),
        values=draw(hnp.arrays(np.float64, m, elements=ANY_FLOAT)),
        logprobs=draw(hnp.arrays(np.float32, (m, k), elements=st.floats(width=32))),
        prompt_tokens=draw(st.integers(0, 2**40)),
        cached_tokens=draw(st.integers(0, 2**40)),
        seconds=draw(st.floats(0, 1e6)),
        probes_digest=draw(st.sampled_from(["sha256:ab", "sha256:cd"])),
    )


def same(a: np.ndarray[Any, Any] | None, b: np.ndarray[Any, Any] | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@given(spectra())
def test_a_spectrum_survives(spectrum: Spectrum) -> None:
    again = codec.decode_spectrum(codec.encode_spectrum(spectrum), "it")
    assert again.n_players == spectrum.n_players
    assert again.players() == spectrum.players()
    assert same(again.supports, spectrum.supports)
    assert same(again.coefficients, spectrum.coefficients)
    assert same(again.standard_errors, spectrum.standard_errors)


@given(spectra(), st.data())
def test_any_changed_byte_of_a_spectrum_is_seen(spectrum: Spectrum, data: st.DataObject) -> None:
    blob = bytearray(codec.encode_spectrum(spectrum))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(VerificationFailed, match="spectrum of x is damaged"):
        codec.decode_spectrum(bytes(blob), "spectrum of x")


@given(spectra(), st.data())
def test_a_spectrum_of_another_length_is_seen(spectrum: Spectrum, data: st.DataObject) -> None:
    blob = codec.encode_spectrum(spectrum)
    with pytest.raises(VerificationFailed, match="damaged"):
        codec.decode_spectrum(blob[: data.draw(st.integers(0, len(blob) - 1))], "it")
    with pytest.raises(VerificationFailed, match="damaged"):
        codec.decode_spectrum(blob + b"\0", "it")


def test_a_spectrum_of_a_newer_form_is_refused_not_misread() -> None:
    blob = bytearray(codec.encode_spectrum(Spectrum.from_terms(2, [(0,)], [1.0])))
    blob[4] = 2
    body = bytes(blob[:-4])
    with pytest.raises(SpexError, match="newer version"):
        codec.decode_spectrum(body + zlib.crc32(body).to_bytes(4, "little"), "it")


def test_the_layout_of_a_spectrum_is_the_documented_one() -> None:
    blob = codec.encode_spectrum(Spectrum.from_terms(65, [(64,)], [2.0]))
    assert blob[:20] == b"SPXF" + b"\1\0" + b"\0\0" + b"\x41\0\0\0" + b"\2" + bytes(7)
    assert blob[20:52] == bytes(24) + b"\1" + bytes(7)
    assert blob[52:68] == np.asarray([0.0, 2.0], "<f8").tobytes()
    assert len(blob) == 72


@given(blocks())
def test_a_block_survives(block: Block) -> None:
    again = codec.decode_block(codec.encode_block(block), "it")
    for field in dataclasses.fields(Block):
        before, after = getattr(block, field.name), getattr(again, field.name)
        assert same(before, after) if isinstance(before, np.ndarray) else before == after
    assert again.digest() == block.digest()


@given(blocks(), st.sampled_from(["masks", "replicates", "mask_values", "logprobs"]), st.data())
def test_any_changed_byte_of_a_block_is_seen(block: Block, column: str, data: st.DataObject) -> None:
    row = codec.encode_block(block)
    blob = bytearray(row[column])
    if not blob:
        return
    padding = (1 << (-block.masks.shape[1] % 8)) - 1  # bits behind the last player mean nothing
    flipped = data.draw(st.integers(1, 255).filter(lambda b: column != "masks" or b & ~padding))
    blob[-1] ^= flipped
    with pytest.raises(VerificationFailed, match="block 3 was changed"):
        codec.decode_block(row | {column: bytes(blob)}, "block 3")
    with pytest.raises(VerificationFailed, match="block 3 is damaged"):
        codec.decode_block(row | {column: bytes(blob[:-1])}, "block 3")


CHOICES = st.lists(
    st.builds(
        Choice,
        text=ANY_TEXT,
        finish_reason=st.none() | ANY_TEXT,
        reasoning=ANY_TEXT,
        tool_calls=st.lists(st.builds(ToolCall, ANY_TEXT, ANY_TEXT, st.none() | ANY_TEXT), max_size=2).map(tuple),
        logprobs=st.none()
        | st.lists(st.tuples(ANY_TEXT, st.floats(allow_nan=False, allow_infinity=False)), max_size=3).map(tuple),
    ),
    max_size=2,
).map(tuple)


@given(MESSAGES, ANY_TEXT, st.none() | IDS, st.dictionaries(ANY_TEXT, JSON, max_size=4), CHOICES)
def test_content_survives(
    messages: tuple[Message, ...],
    output: str,
    ids: tuple[int, ...] | None,
    request: dict[str, Any],
    choices: tuple[Choice, ...],
) -> None:
    exchange = Exchange(
        "id", "default", "chat", "tiny", messages, output, None, None, False, None,  # type: ignore[arg-type]
        0.0, 0.0, None, None, 1.0, request, ids, ids, choices, {"total_tokens": 3}, "tool_calls",
    )  # fmt: skip
    content = codec.decode_content(codec.encode_content(exchange), "it")
    assert dataclasses.replace(exchange, **content) == exchange
    assert set(content) == {
        "messages", "output_text", "request", "prompt_ids", "output_ids", "choices", "usage", "obstacle"
    }  # fmt: skip


def test_content_of_the_first_versions_is_read() -> None:
    old = {"output_text": "a", "prompt_ids": None, "output_ids": None, "messages": [], "request": "{}"}
    content = codec.decode_content(codec.pack_json(old), "it")
    assert content == old | {"messages": (), "request": {}, "choices": ()}


@given(
    st.builds(
        TokenizedExchange,
        prompt_ids=IDS,
        prompt_text=ANY_TEXT,
        offsets=st.lists(st.tuples(st.integers(0), st.integers(0)), max_size=5).map(tuple),
        places=st.lists(st.none() | PLACES, max_size=3).map(tuple),
        output_ids=IDS,
        ids_source=st.sampled_from(["reply", "render", "tokenize"]),
    )
)
def test_tokens_survive(tokens: TokenizedExchange) -> None:
    assert codec.decode_tokens(codec.encode_tokens(tokens), "it") == tokens


@given(st.lists(SEGMENTS, max_size=4), st.lists(ANY_TEXT, max_size=2))
def test_players_survive(segments: list[Segment], notes: list[str]) -> None:
    players = Segmentation("word", tuple(segments), tuple(notes))
    assert codec.decode_players(codec.encode_players(players), "it") == players


@given(st.builds(Fidelity, *[ANY_FLOAT] * 7, st.integers(0)))
def test_fidelity_survives_with_numbers_that_json_does_not_have(fidelity: Fidelity) -> None:
    again = codec.decode_fidelity(codec.encode_fidelity(fidelity), "it")
    assert repr(again) == repr(fidelity)


@given(hnp.arrays(st.sampled_from([np.bool_, np.int32, np.uint8, np.float32, np.float64]), hnp.array_shapes()))
def test_arrays_inside_packed_json_survive(array: np.ndarray[Any, Any]) -> None:
    again = codec.unpack_json(codec.pack_json({"deep": [array, np.float64(0.1), (1, 2)]}), "it")
    assert same(again["deep"][0], array)
    assert again["deep"][1:] == [0.1, [1, 2]]


@pytest.mark.parametrize("spoil", [lambda b: b"XXXX" + b[4:], lambda b: b[:-3], lambda b: b[:9] + b"\0" + b[10:]])
def test_damaged_packed_json_says_so(spoil: Any) -> None:
    with pytest.raises(VerificationFailed, match="content of 7 is damaged"):
        codec.unpack_json(spoil(codec.pack_json({"a": list(range(50))})), "content of 7")


@given(st.lists(ANY_TEXT | st.text('aAbB \\\n"_.é', max_size=30), min_size=1, max_size=3), st.data())
def test_texts_that_say_a_word_are_never_passed_over(texts: list[str], data: st.DataObject) -> None:
    blob = codec.pack_json({"messages": [{"text": text} for text in texts], "request": "{}"})
    assert codec.message_texts(blob, "it") == texts
    said = [word for text in texts for word in words(text)]
    if said:
        needles = data.draw(st.lists(st.sampled_from(said), max_size=2))
        assert codec.message_texts(blob, "it", needles) == texts
    if all(text.isascii() and "\\" not in text and text.isprintable() for text in texts):
        assert codec.message_texts(blob, "it", ["zq"]) == []


@pytest.mark.parametrize("blob", [b"XXXX", codec.pack_json({"a": 1}), codec.pack_json({"messages": [{}]})])
def test_content_without_texts_is_damaged(blob: bytes) -> None:
    with pytest.raises(VerificationFailed, match="content of 7 is damaged"):
        codec.message_texts(blob, "content of 7")


def test_what_json_can_not_hold_is_refused_when_it_is_written() -> None:
    with pytest.raises(TypeError, match="can't keep a set"):
        codec.pack_json({"a": {1}})
    with pytest.raises(TypeError, match="can't keep a ndarray"):
        codec.pack_json(np.asarray([object()]))


def test_a_field_of_a_newer_version_is_refused_by_name() -> None:
    segment = {"message": 0, "char_start": 0, "char_end": 1, "token_start": 0, "token_end": 1}
    future = {"method": "word", "segments": [segment | {"role": "user", "provenance": "user", "mood": 1}]}
    with pytest.raises(SpexError, match=r"players of game 5 can't be read .*mood"):
        codec.decode_players(future, "players of game 5")


def test_what_the_first_version_stored_is_read_with_defaults() -> None:
    """Before tools, parts, escaped texts and notes: none of their fields stand there."""
    content = {
        "output_text": "ok", "prompt_ids": None, "output_ids": None, "request": "{}",
        "messages": [{"role": "tool", "text": "18 °C", "name": "weather"}],
    }  # fmt: skip
    assert codec.decode_content(codec.pack_json(content), "it")["messages"] == (Message("tool", "18 °C", "weather"),)
    tokens = {
        "prompt_ids": [5], "prompt_text": "hi", "offsets": [[0, 2]], "output_ids": [9], "ids_source": "render",
        "places": [{"start": 0, "end": 2, "trimmed": 1}, None],
    }  # fmt: skip
    assert codec.decode_tokens(codec.pack_json(tokens), "it").places == (MessagePlace(0, 2, 1, "plain"), None)
    segment = dataclasses.asdict(Segment(0, 0, 1, 0, 1, "tool", "tool:weather"))
    assert codec.decode_players({"method": "word", "segments": [segment]}, "it").notes == ()
