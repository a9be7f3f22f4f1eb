"""The game `in_context`: demonstrations of a prompt, or retrieved documents, are left out, and a model server is asked.

A coalition's prompt is the app's own way to leave something out: the chat is put together from what is kept, in its
order, and rendered by the model's template. What is read is the log-probability of each question's right answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.evidence import Masks
from spex_proxy.facts.seals import canonical_json, seal
from spex_proxy.plug.kinds import Ask, Measured, OpenGame, Player, Rules, Scores
from spex_proxy_training import rows
from spex_proxy_training.section import Section

KNOWN = ("model", "mode", "instruction", "examples", "documents", "questions", "probes_a_batch")
"""`model` is read by whoever makes the Ask: which of the server's models is asked."""
MODES = ("examples", "documents")
VERSION = "1"
"""Of how a prompt is put together."""
PROBES = 32
"""Questions to the server in one batch: what a crash may lose."""

Mode = Literal["examples", "documents"]
Message = dict[str, str]
Probe = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Piece:
    """What may be left out: a demonstration (what was asked, what was answered) or a document (source, text)."""

    first: str
    second: str
    group: str


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """How a chat is put together. Pure."""

    mode: Mode
    instruction: str
    pieces: tuple[Piece, ...]

    def messages(self, mask: NDArray[np.bool_], question: str) -> list[Message]:
        """The chat of the kept pieces (mask: shape (n,)) up to where the answer begins.

        Demonstrations are turns of user and assistant. Documents stand before the question, in the user's message.
        """
        kept = [piece for piece, is_kept in zip(self.pieces, mask, strict=True) if is_kept]
        chat: list[Message] = [{"role": "system", "content": self.instruction}] if self.instruction else []
        if self.mode == "examples":
            for piece in kept:
                chat += [{"role": "user", "content": piece.first}, {"role": "assistant", "content": piece.second}]
            return [*chat, {"role": "user", "content": question}]
        documents = [f"[{piece.first}] {piece.second}" if piece.first else piece.second for piece in kept]
        return [*chat, {"role": "user", "content": "\n\n".join([*documents, question])}]


class InContext:
    """Games whose players stand in a prompt and whose values a model server gives."""

    name = "in_context"
    needs_server = True

    def open(self, config: Mapping[str, Any], ask: Ask | None) -> OpenGame:
        """Read the pieces and the questions, and the answers' tokens. Raises as GameMaker.open."""
        top = Section.of(config, "", KNOWN)
        mode: Mode = "examples" if top.choice("mode", MODES, "examples") == "examples" else "documents"
        other = "documents" if mode == "examples" else "examples"
        if top.has(other):
            raise ValueError(f"mode is {mode}, but there are {other} too; give one of them")
        prompt = Prompt(mode, top.text("instruction", ""), pieces_of(top, mode))
        questions = questions_of(top)
        if ask is None:
            raise ValueError("the game in_context asks a model server; name one in the settings (upstream)")
        answers = tuple(answer_ids(ask, question, at) for at, question in enumerate(questions))
        batch = max(1, top.whole("probes_a_batch", PROBES, 1) // len(questions))
        return Asking(rules_of(prompt, questions, answers, ask, batch), prompt, questions, answers, ask)


def entries(top: Section, name: str, known: Sequence[str]) -> list[Section]:
    """A list in the configuration itself, or the path of a CSV or JSON-lines file with these columns."""
    if isinstance(top.entries.get(name), str):
        found = rows.read(top.text(name), top.path(name))
        return [Section.of(row, f"{top.path(name)}, row {at + 1}", known) for at, row in enumerate(found)]
    return top.records(name, known)


def pieces_of(top: Section, mode: Mode) -> tuple[Piece, ...]:
    if mode == "examples":
        found = entries(top, "examples", ("input", "output", "group"))
        return tuple(Piece(one.text("input"), one.text("output"), one.text("group", "")[:60]) for one in found)
    found = entries(top, "documents", ("text", "source"))
    return tuple(Piece(one.text("source", ""), one.text("text"), one.text("source", "")[:60]) for one in found)


def questions_of(top: Section) -> tuple[Question, ...]:
    found = entries(top, "questions", ("question", "answer"))
    return tuple(Question(one.text("question"), one.text("answer")) for one in found)


def answer_ids(ask: Ask, question: Question, at: int) -> tuple[int, ...]:
    """Raises ValueError for an answer of which the tokenizer makes nothing: it would have log-probability 0 always."""
    found = tuple(ask.text_tokens(question.answer))
    if not found:
        raise ValueError(f"questions[{at}].answer has no tokens; write an answer that the model could give")
    return found


def rules_of(
    prompt: Prompt, questions: Sequence[Question], answers: Sequence[Sequence[int]], ask: Ask, batch: int
) -> Rules:
    if prompt.mode == "examples":
        texts = [f"{piece.first} -> {piece.second}" for piece in prompt.pieces]
    else:
        texts = [piece.second for piece in prompt.pieces]
    everything = np.ones(len(prompt.pieces), dtype=np.bool_)
    tokens = [
        len(ask.tokens(prompt.messages(everything, question.text))) + len(answer)
        for question, answer in zip(questions, answers, strict=True)
    ]
    return Rules(
        kind="training",
        subject=ask.model,
        players=tuple(Player(text, piece.group) for text, piece in zip(texts, prompt.pieces, strict=True)),
        items=tuple(" ".join(f"log-probability of {one.answer!r}: {one.text}".split()) for one in questions),
        value="mean",
        unit="nats",
        digest=digest_of(prompt, questions, answers, ask.model),
        batch=batch,
        cost=f"{len(questions)} prompts, at most {max(tokens)} tokens each ({sum(tokens)} in all with everything kept)",
        notes=(
            "Each coalition's chat is put together from what is kept and rendered by the model's own template.",
            "A reading is the sum of log-probabilities of the right answer's tokens, one for each question.",
        ),
    )


def digest_of(prompt: Prompt, questions: Sequence[Question], answers: Sequence[Sequence[int]], model: str) -> str:
    """Of what is asked, and of whom; what the server makes of it is the server's."""
    about = {
        "code": VERSION, "model": model, "mode": prompt.mode, "instruction": prompt.instruction,
        "pieces": [[piece.first, piece.second] for piece in prompt.pieces],
        "questions": [[question.text, question.answer] for question in questions],
        "answers": [list(answer) for answer in answers],
    }  # fmt: skip
    return seal(b"spex-proxy in_context 1", canonical_json(about))


class Asking:
    """An open game: every row of `measure` is one prompt for each question."""

    def __init__(
        self,
        rules: Rules,
        prompt: Prompt,
        questions: Sequence[Question],
        answers: Sequence[tuple[int, ...]],
        ask: Ask,
    ) -> None:
        self.rules = rules
        self._prompt = prompt
        self._questions = questions
        self._answers = answers
        self._ask = ask

    def measure(self, masks: Masks) -> Measured:
        """As OpenGame.measure. What the server refuses raises; an answer without finite numbers fails its row."""
        if masks.ndim != 2 or masks.shape[1] != len(self.rules.players) or masks.dtype != np.bool_:
            raise ValueError(f"masks must be bool (m, {len(self.rules.players)}), not {masks.dtype} {masks.shape}")
        probes: list[Probe] = [
            (self._ask.tokens(self._prompt.messages(mask, question.text)), answer)
            for mask in masks
            for question, answer in zip(self._questions, self._answers, strict=True)
        ]
        return read(self._ask.score(probes), [len(answer) for answer in self._answers], len(masks))

    def close(self) -> None:
        """The server is the flow's."""


def read(scores: Scores, lengths: Sequence[int], m: int) -> Measured:
    """Scores of m rows x k questions, in that order -> readings (m, k). `lengths` (k,): tokens of each answer.

    Raises ValueError if there are not m x k of them: then no row can be told from another.
    """
    k = len(lengths)
    if len(scores.logprobs) != m * k:
        raise ValueError(f"{m * k} prompts were scored with {len(scores.logprobs)} answers")
    found = np.full((m, k), np.nan, dtype=np.float32)
    failures: dict[int, str] = {}
    for row in range(m):
        of_row = scores.logprobs[row * k : (row + 1) * k]
        if any(one.shape != (length,) for one, length in zip(of_row, lengths, strict=True)):
            failures[row] = "the server gave another number of log-probabilities than the answer has tokens"
        elif not all(np.isfinite(one).all() for one in of_row):
            failures[row] = "the server gave a log-probability that is not finite"
        else:
            found[row] = [one.sum(dtype=np.float64) for one in of_row]
    return Measured(found, failures, scores.prompt_tokens, scores.cached_tokens)
