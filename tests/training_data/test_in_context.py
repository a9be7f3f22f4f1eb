"""Demonstrations and documents as players: a scripted model server whose every log-probability is known by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.engine import walsh
from spex_proxy.plug.kinds import Measured, OpenGame, Scores
from spex_proxy_training.in_context import InContext, read

TURN = -1
"""Where a message begins."""


class Parrot:
    """A language model of words: each word is a token. A word of the answer is worth -1, or -0.25 if the prompt said it
    before; another -0.125 for each word that the prompt holds in all."""

    model = "parrot"

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        self.asked: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def text_tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self.words.setdefault(word, len(self.words)) for word in text.split())

    def tokens(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        return tuple(token for one in messages for token in (TURN, *self.text_tokens(one["content"])))

    def score(self, questions: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Scores:
        self.asked += [(tuple(prompt), tuple(answer)) for prompt, answer in questions]
        found = []
        for prompt, answer in questions:
            length = 0.125 * sum(token != TURN for token in prompt)
            found.append(
                np.asarray([(-0.25 if word in prompt else -1.0) - length for word in answer], dtype=np.float32)
            )
        sent = sum(len(prompt) + len(answer) for prompt, answer in questions)
        return Scores(tuple(found), sent, sent // 4)


EXAMPLES = {
    "instruction": "name the town",
    "examples": [
        {"input": "river one", "output": "Oslo"},
        {"input": "river two", "output": "Bern"},
        {"input": "bridge", "output": "Bern"},
    ],
    "questions": [{"question": "river", "answer": "Bern"}, {"question": "tower", "answer": "New Oslo"}],
}
DOCUMENTS = {
    "mode": "documents",
    "documents": [{"text": "the bell is red", "source": "notes"}, {"text": "nothing"}],
    "questions": [{"question": "which colour", "answer": "red"}],
}


def opened(config: Mapping[str, Any], ask: Parrot | None = None) -> OpenGame:
    return InContext().open(config, ask or Parrot())


def worth(*kept: int) -> list[float]:
    """EXAMPLES by hand: 3 words of instruction, the kept examples' words, one of the question."""
    words = 4 + sum((3, 3, 2)[one] for one in kept)
    bern = (-0.25 if {1, 2} & set(kept) else -1.0) - 0.125 * words
    oslo = (-0.25 if 0 in kept else -1.0) - 0.125 * words
    return [bern, (-1.0 - 0.125 * words) + oslo]


def test_every_coalition_by_hand() -> None:
    masks = walsh.all_masks(3)
    found = opened(EXAMPLES).measure(masks)
    assert found.readings.tolist() == [worth(*np.flatnonzero(mask).tolist()) for mask in masks]
    assert found.readings.dtype == np.float32
    assert not found.failures


def test_the_chat_that_is_asked() -> None:
    ask = Parrot()
    game = opened(EXAMPLES, ask)
    found = game.measure(np.asarray([[False, True, True]]))
    spoken = {number: word for word, number in ask.words.items()}
    prompts = [" ".join(spoken.get(token, "|") for token in prompt) for prompt, _ in ask.asked]
    assert prompts == [
        "| name the town | river two | Bern | bridge | Bern | river",
        "| name the town | river two | Bern | bridge | Bern | tower",
    ]
    assert found.prompt_tokens == (15 + 1) + (15 + 2)
    assert found.cached_tokens == found.prompt_tokens // 4


def test_rules_say_who_plays_and_what_it_costs() -> None:
    rules = opened(EXAMPLES).rules
    assert [player.text for player in rules.players] == ["river one -> Oslo", "river two -> Bern", "bridge -> Bern"]
    assert rules.items == ("log-probability of 'Bern': river", "log-probability of 'New Oslo': tower")
    assert (rules.kind, rules.subject, rules.value, rules.unit, rules.batch) == (
        "training",
        "parrot",
        "mean",
        "nats",
        16,
    )
    # everything kept: 3 + 3 + 3 + 2 + 1 words, 8 turns, the answer
    assert rules.cost == "2 prompts, at most 22 tokens each (43 in all with everything kept)"


def test_documents_stand_before_the_question() -> None:
    ask = Parrot()
    game = opened(DOCUMENTS, ask)
    found = game.measure(walsh.all_masks(2))
    # words: question 2; document 1: [notes] the bell is red 5; document 2: 1
    assert found.readings[:, 0].tolist() == [-1.25, -0.25 - 0.875, -1.375, -0.25 - 1.0]
    assert [player.group for player in game.rules.players] == ["notes", ""]
    assert all(prompt.count(TURN) == 1 for prompt, _ in ask.asked)


@given(st.permutations(range(3)), st.integers(0, 7))
def test_renaming_examples_renames_masks(order: list[int], number: int) -> None:
    """The parrot does not mind the order of turns, so neither do values; the digest does."""
    kept = [bool(number >> at & 1) for at in range(3)]
    plain = opened(EXAMPLES)
    moved = opened({**EXAMPLES, "examples": [EXAMPLES["examples"][at] for at in order]})  # type: ignore[index]
    mask, renamed = np.asarray([kept]), np.asarray([[kept[at] for at in order]])
    assert plain.measure(mask).readings.tolist() == moved.measure(renamed).readings.tolist()
    assert (plain.rules.digest == moved.rules.digest) == (order == [0, 1, 2])


@pytest.mark.parametrize(
    "change",
    [
        {"instruction": "name the city"},
        {"questions": [{"question": "river", "answer": "Oslo"}]},
        {"examples": [{"input": "river one", "output": "Bern"}, *EXAMPLES["examples"][1:]]},  # type: ignore[index]
    ],
)
def test_every_word_counts_for_the_digest(change: dict[str, Any]) -> None:
    assert opened(EXAMPLES).rules.digest != opened({**EXAMPLES, **change}).rules.digest
    assert opened(EXAMPLES).rules.digest == opened(dict(EXAMPLES)).rules.digest


def test_lists_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "shots.csv").write_text("input,output\nriver one,Oslo\nriver two,Bern\nbridge,Bern\n")
    (tmp_path / "asked.jsonl").write_text(
        '{"question": "river", "answer": "Bern"}\n{"question": "tower", "answer": "New Oslo"}\n'
    )
    files = {"examples": str(tmp_path / "shots.csv"), "questions": str(tmp_path / "asked.jsonl")}
    assert opened({**EXAMPLES, **files}).rules.digest == opened(EXAMPLES).rules.digest


def answers(*rows: list[float]) -> Scores:
    return Scores(tuple(np.asarray(row, dtype=np.float32) for row in rows), 10, 0)


def test_an_answer_that_is_none_fails_its_row_alone() -> None:
    found = read(answers([-1.0], [-2.0, -3.0], [float("nan")], [-1.0, -1.0], [-1.0], [-4.0]), [1, 2], 3)
    assert isinstance(found, Measured)
    assert found.readings[0].tolist() == [-1.0, -5.0]
    assert np.isnan(found.readings[1:]).all()
    assert set(found.failures) == {1, 2}
    assert "not finite" in found.failures[1]
    assert "another number of log-probabilities" in found.failures[2]
    with pytest.raises(ValueError, match="4 prompts were scored with 3 answers"):
        read(answers([-1.0], [-2.0], [-1.0]), [1, 1], 2)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"mode": "prompts"}, "mode is 'prompts'; it must be one of examples, documents"),
    ({"examples": []}, "examples must be a list of mappings, at least one"),
    ({"examples": [{"input": "secret"}]}, r"examples\[0\].output is missing"),
    ({"examples": [{"input": "secret", "output": ""}]}, r"examples\[0\].output must be a text"),
    ({"examples": [{"inputs": "secret", "output": "a"}]}, r"examples\[0\] knows no 'inputs'"),
    ({"questions": None}, "questions is missing"),
    ({"questions": [{"question": "secret"}]}, r"questions\[0\].answer is missing"),
    ({"documents": [{"text": "secret"}]}, "mode is examples, but there are documents too"),
    ({"examples": "nowhere.jsonl"}, "there is no file 'nowhere.jsonl'"),
    ({"probes_a_batch": 0}, "whole number of 1 or more"),
    ({"colour": "x"}, "knows no 'colour'"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[said[:30] for _, said in WRONG])
def test_a_wrong_configuration_says_where_and_what(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        opened({**EXAMPLES, **change})
    assert "secret" not in str(refused.value)


def test_an_answer_without_tokens_is_refused() -> None:
    class Deaf(Parrot):
        def text_tokens(self, text: str) -> tuple[int, ...]:
            return ()

    with pytest.raises(ValueError, match=r"questions\[0\].answer has no tokens"):
        opened(EXAMPLES, Deaf())


def test_without_a_server_it_says_so() -> None:
    assert InContext.needs_server
    with pytest.raises(ValueError, match="asks a model server"):
        InContext().open(EXAMPLES, None)
