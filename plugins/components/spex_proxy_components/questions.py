"""Questions: what a person wrote, and what becomes of it in the model's tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

NAME_LENGTH = 200
"""Characters of a question that lists show."""
KNOWN = ("prompt", "messages", "answer", "contrast", "name")


@dataclass(frozen=True, slots=True)
class Question:
    """One question: a prompt or a chat, the answer whose value is read, and one to compare it with."""

    answer: str
    """As it follows the prompt: with its leading space, if there is one."""
    prompt: str = ""
    messages: tuple[Mapping[str, str], ...] = ()
    """In place of `prompt`: a chat, which the tokenizer's template turns into one."""
    contrast: str = ""
    name: str = ""

    @property
    def shown(self) -> str:
        """For lists, in one line: its name, else the end of what is asked."""
        asked = self.name or self.prompt or self.messages[-1]["content"]
        return " ".join(asked.split())[-NAME_LENGTH:] or "question"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as token ids."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    contrast: tuple[int, ...]
    """Empty without one."""

    @property
    def length(self) -> int:
        """The longest sequence that goes through the model; the last token of an answer needs not."""
        return len(self.prompt) + max(len(self.answer), len(self.contrast)) - 1


class Tokenizer(Protocol):
    """What is used of transformers' tokenizers."""

    chat_template: Any

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...


def read_questions(given: Any) -> tuple[Question, ...]:
    """A list of questions, or the path of a file with one JSON object a line. Raises ValueError naming the line."""
    if isinstance(given, str):
        try:
            lines = Path(given).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"`questions`: {given} can't be read: {error}") from error
        found = []
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    found.append(question_of(json.loads(line)))
                except ValueError as error:  # JSONDecodeError is one
                    raise ValueError(f"{given}, line {number}: {error}") from error
        if not found:
            raise ValueError(f"`questions`: {given} holds none")
        return tuple(found)
    if not isinstance(given, list | tuple):
        raise ValueError("`questions` must be a list of questions, or a file with one JSON object a line")
    try:
        return tuple(question_of(each) for each in given)
    except ValueError as error:
        raise ValueError(f"`questions`: {error}") from error


def question_of(given: Any) -> Question:
    """Raises ValueError for what is no question."""
    if not isinstance(given, Mapping):
        raise ValueError(f"a question is an object with `prompt` or `messages`, and `answer`; not {given!r:.60}")
    for name in given:
        if name not in KNOWN:
            raise ValueError(f"a question has no {name!r}; there is {', '.join(KNOWN)}")
    for name in ("prompt", "answer", "contrast", "name"):
        if not isinstance(given.get(name, ""), str):
            raise ValueError(f"a question's `{name}` must be a text")
    if not given.get("answer"):
        raise ValueError("a question needs an `answer`")
    messages = given.get("messages", ())
    if bool(given.get("prompt")) == bool(messages):
        raise ValueError("a question has either `prompt` or `messages`")
    if not isinstance(messages, list | tuple) or not all(is_message(each) for each in messages):
        raise ValueError("a question's `messages` is a list of objects with the texts `role` and `content`")
    return Question(**{**given, "messages": tuple(dict(each) for each in messages)})


def is_message(given: Any) -> bool:
    return isinstance(given, Mapping) and all(isinstance(given.get(name), str) for name in ("role", "content"))


def asked_of(question: Question, tokenizer: Tokenizer, number: int) -> Asked:
    """Token ids of a question, the `number`th. Raises ValueError for one that the model cannot be asked."""
    prompt, text = prompt_of(question, tokenizer, number)
    answer = continued(prompt, text, question.answer, tokenizer)
    contrast = continued(prompt, text, question.contrast, tokenizer) if question.contrast else ()
    if not prompt:
        raise ValueError(f"question {number}: the prompt has no token; the first token of an answer follows one")
    if not answer or (question.contrast and not contrast):
        raise ValueError(f"question {number}: an answer has no token")
    shorter = min(len(answer), len(contrast))
    if contrast and answer[:shorter] == contrast[:shorter]:
        raise ValueError(
            f"question {number}: `answer` and `contrast` coincide in the model's tokens, or one begins with the other; "
            "their difference would say nothing. Give answers that part from each other"
        )
    return Asked(prompt, answer, contrast)


def prompt_of(question: Question, tokenizer: Tokenizer, number: int) -> tuple[tuple[int, ...], str]:
    """Token ids of the prompt, and its text where an answer is joined to it."""
    if not question.messages:
        return tuple(tokenizer.encode(question.prompt)), question.prompt
    if not tokenizer.chat_template:
        raise ValueError(
            f"question {number} is a chat (`messages`), but the model's tokenizer has no chat template; "
            "write the text that the model shall see as `prompt`"
        )
    chat = [dict(each) for each in question.messages]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return tuple(tokenizer.encode(text, add_special_tokens=False)), ""


def continued(prompt: Sequence[int], text: str, answer: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens of an answer behind a prompt: as the tokenizer cuts both together, if the prompt's stay as they are."""
    if text:
        joined = tokenizer.encode(text + answer)
        if tuple(joined[: len(prompt)]) == tuple(prompt):
            return tuple(joined[len(prompt) :])
    return tuple(tokenizer.encode(answer, add_special_tokens=False))
