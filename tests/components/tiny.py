"""Small real models with random weights, and a tokenizer of whole words, made in the test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from spex_proxy_components.game import OpenComponents
from spex_proxy_components.opening import game_of
from spex_proxy_components.settings import Wanted

WORDS = "a b c d e f g h red green blue one two three is not the of and or ? .".split()  # noqa: SIM905
LAYERS, HEADS, SHARED, SIZE = 3, 4, 2, 8
"""Layers, query heads, heads that share keys and values, numbers of a head."""
QUESTIONS = [
    {"prompt": "a b c is", "answer": "red blue", "contrast": "green"},
    {"prompt": "a b c is not", "answer": "one", "contrast": "two three"},
    {"prompt": "a b d", "answer": "e", "contrast": "f"},
    {"prompt": "the red of the green of the blue is", "answer": "h g f", "contrast": "h b c"},
    {"prompt": "d", "answer": "a", "contrast": "b"},
]


def tokenizer() -> Any:
    """Words by number, no special tokens, no chat template."""
    vocabulary = {word: number for number, word in enumerate([*WORDS, "[UNK]"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")


def llama(seed: int = 0, **more: Any) -> Any:
    """Grouped-query attention, weights large enough that everything matters."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS) + 1, hidden_size=HEADS * SIZE, intermediate_size=48, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS // SHARED, max_position_embeddings=64,
        initializer_range=0.3, **more,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def gpt2(seed: int = 0) -> Any:
    """Other names, learned positions, transposed projections."""
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=len(WORDS) + 1, n_embd=HEADS * SIZE, n_layer=LAYERS, n_head=HEADS, n_positions=64,
        initializer_range=0.3,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


SHAPE: dict[str, Any] = {
    "vocab_size": len(WORDS) + 1, "hidden_size": HEADS * SIZE, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": HEADS // SHARED, "max_position_embeddings": 64,
    "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip


def gemma2(cap: float | None = 3.0) -> Any:
    """Caps its logits at the end."""
    torch.manual_seed(0)
    config = transformers.Gemma2Config(**SHAPE, head_dim=SIZE, final_logit_softcapping=cap, sliding_window=64)
    return transformers.Gemma2ForCausalLM(config).eval()


def cohere(scale: float = 0.25) -> Any:
    """Multiplies its logits at the end."""
    torch.manual_seed(0)
    return transformers.CohereForCausalLM(transformers.CohereConfig(**SHAPE, logit_scale=scale)).eval()


def granite(divisor: float = 4.0) -> Any:
    """Divides its logits at the end."""
    torch.manual_seed(0)
    return transformers.GraniteForCausalLM(transformers.GraniteConfig(**SHAPE, logits_scaling=divisor)).eval()


def wanted(**config: Any) -> Wanted:
    return Wanted.of({"model": "tiny", "questions": QUESTIONS, **config})


@contextmanager
def playing(model: Any = None, **config: Any) -> Iterator[OpenComponents]:
    """A game of a tiny model, closed afterwards."""
    game = game_of(llama() if model is None else model, tokenizer(), wanted(**config))
    try:
        yield game
    finally:
        game.close()


def masks(n: int, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, n)) < 0.5


def own_logprobs(model: Any, questions: list[Mapping[str, str]], of: str = "answer") -> np.ndarray:
    """By transformers alone: each question in a pass of its own."""
    words, found = tokenizer(), []
    for question in questions:
        prompt, answer = words.encode(question["prompt"]), words.encode(question[of])
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer[:-1]]])).logits[0, len(prompt) - 1 :]
        found.append(float(logits.log_softmax(-1)[range(len(answer)), answer].sum()))
    return np.asarray(found)
