"""Masks a second: many masks in one pass against one pass a mask, in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench.component_games import BEGINNING, GROUPS, WORDS
from bench.table import markdown
from spex_proxy.facts.evidence import Masks
from spex_proxy_components.ablation import Cut, Hooks, Layout, scales
from spex_proxy_components.anatomy import take_apart
from spex_proxy_components.opening import game_of, loaded
from spex_proxy_components.settings import Wanted

LENGTH = 40
"""Tokens of a prompt."""
SHAPES = {"1 question": (1, 0, 24), "8 questions, 30 tokens alike": (8, 30, 8)}
"""Name -> how many questions, how many tokens at their beginning are the same, and how many masks are timed."""
ALONE = 2
"""Masks that are timed one by one."""
CHOSEN = ("all", "12-17", "24-29")
"""Layers 0-5 cost what all layers cost: nothing below them is spared."""
ENOUGH = 5.0


def prompts(tokenizer: Any, count: int, alike: int) -> list[dict[str, str]]:
    """Questions of LENGTH tokens each; every word is one token."""
    random = np.random.default_rng(7)
    shared = max(0, alike - len(tokenizer.encode(BEGINNING)))
    first = [f" {WORDS[at]}" for at in random.integers(len(WORDS), size=shared)]
    made = []
    for _ in range(count):
        rest = LENGTH - len(tokenizer.encode(BEGINNING)) - shared
        own = [f" {WORDS[at]}" for at in random.integers(len(WORDS), size=rest)]
        made.append({"prompt": BEGINNING + "".join([*first, *own]), "answer": " river", "contrast": " stone"})
    assert all(len(tokenizer.encode(each["prompt"])) == LENGTH for each in made)
    return made


def table(model_name: str) -> str:
    """Raises SystemExit if the two ways don't agree."""
    rows = []
    model, tokenizer = loaded(Wanted.of({"model": model_name, "questions": [{"prompt": "a", "answer": "b"}]}))
    for shape, (count, alike, batched) in SHAPES.items():
        asked = prompts(tokenizer, count, alike)
        for group in CHOSEN:
            config = {"model": model_name, "questions": asked, "layers": GROUPS[group], "value": "logit_difference"}
            rows.append([f"{shape}, layers {group}", *compared(model, tokenizer, Wanted.of(config), batched)])
    head = ["prompts of 40 tokens", "masks/s", "a pass a mask", "ratio", "a pass a mask and question", "ratio"]
    return markdown(head, rows)


def compared(model: Any, tokenizer: Any, wanted: Wanted, batched: int) -> list[str]:
    game = game_of(model, tokenizer, wanted)
    masks = np.random.default_rng(3).random((batched, len(game.rules.players))) < 0.5
    game.measure(masks[:2])
    ours, readings = timed(lambda: game.measure(masks).readings)
    game.close()
    found = [f"{batched / ours:.1f}"]
    for at_once in dict.fromkeys((len(wanted.questions), 1)):
        alone = OneByOne(model, tokenizer, wanted, at_once)
        alone.values(masks[:1])
        seconds, values = timed(lambda alone=alone: alone.values(masks[:ALONE]))
        alone.close()
        if not np.allclose(values, readings[:ALONE], atol=1e-2):
            raise SystemExit(f"the two ways differ by {np.abs(values - readings[:ALONE]).max():.3g}")
        ratio = (batched / ours) / (ALONE / seconds)
        found += [f"{ALONE / seconds:.2f}", f"{ratio:.1f}{'' if ratio >= ENOUGH else ' (under 5)'}"]
    return found if len(found) > 3 else [*found, *found[1:]]  # a single question: both ways are one


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    found = what()
    return time.perf_counter() - begin, found


class OneByOne:
    """The plain way: transformers' forward pass with hooks for one mask, logits at the last token only."""

    def __init__(self, model: Any, tokenizer: Any, wanted: Wanted, at_once: int) -> None:
        anatomy = take_apart(model)
        first, stop = wanted.layers or (0, len(anatomy.layers))
        self.layout = Layout(first, stop, anatomy.n_heads, has_mlp=False)
        self.hooks, self.model, self.at_once = Hooks(anatomy, self.layout), model, at_once
        self.ids = torch.tensor([tokenizer.encode(each.prompt) for each in wanted.questions])
        self.sides = [tokenizer.encode(text)[0] for text in (wanted.questions[0].answer, wanted.questions[0].contrast)]

    def values(self, masks: Masks) -> np.ndarray:
        return np.asarray([self.value(mask) for mask in masks])

    def value(self, mask: np.ndarray) -> list[float]:
        heads, mlps = self.layout.split(mask[None])
        found: list[float] = []
        for start in range(0, len(self.ids), self.at_once):
            self.hooks.cut = Cut(torch.from_numpy(scales(heads, True)), torch.from_numpy(mlps.astype(np.float32)), None)
            with torch.inference_mode():
                ids = self.ids[start : start + self.at_once]
                logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]
            found += (logits[:, self.sides[0]] - logits[:, self.sides[1]]).tolist()
        self.hooks.cut = None
        return found

    def close(self) -> None:
        self.hooks.close()
