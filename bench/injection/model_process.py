"""The model, in a process of the interpreter that has torch: one JSON request a line in, one JSON answer a line out.

PYTHON -m bench.injection.model_process MODEL_FOLDER      (vLLM's environment has what it needs)

In 32-bit floats with transformers: on a processor without bfloat16 arithmetic that is several times faster than
bfloat16, and packed prompts (`packing`) need an attention mask of their own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.injection.packing import Packed, Prompt, pack

NICENESS = 10
"""Whatever else the machine does goes first."""


class Model:
    def __init__(self, folder: str) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"  # everything is on disk; say so before transformers is imported
        import torch  # noqa: PLC0415 - exists in vLLM's environment only
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - likewise

        torch.set_num_threads(1)  # more wait for each other on a busy machine; start more processes instead
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.end = int(self.tokenizer.convert_tokens_to_ids("<|im_end|>"))

    def render(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """Chat messages -> the prompt's text, its ids and the characters that each id covers."""
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return {"text": text, "ids": found["input_ids"], "offsets": found["offset_mapping"]}

    def generate(self, prompts: list[list[int]], most: int) -> list[dict[str, Any]]:
        """Greedy answers: ids (without the end's) and text."""
        answers = []
        for ids in prompts:
            made = self._greedy(ids, most)
            answers.append({"ids": made, "text": self.tokenizer.decode(made)})
        return answers

    def _greedy(self, ids: Sequence[int], most: int) -> list[int]:
        made: list[int] = []
        step, cache = self.torch.tensor([list(ids)]), None
        while len(made) < most:
            out = self.model(step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            token, cache = int(out.logits[0, -1].argmax()), out.past_key_values
            if token == self.end:
                break
            made.append(token)
            step = self.torch.tensor([[token]])
        return made

    def score(self, prompt: dict[str, Any], output: list[int], masks: list[list[int]]) -> list[float]:
        """Summed log-probability of the output under each mask, in nats."""
        given = Prompt(tuple(prompt["before"]), tuple(map(tuple, prompt["segments"])), tuple(prompt["after"]))
        values = [0.0] * len(masks)
        for packed in pack(given, tuple(output), np.asarray(masks, dtype=np.bool_)):
            for row, value in zip(packed.rows, self._values(packed, output), strict=True):
                values[row] = value
        return values

    def _values(self, packed: Packed, output: list[int]) -> list[float]:
        torch = self.torch
        hidden = self.model.model(
            torch.from_numpy(packed.ids)[None],
            attention_mask=torch.from_numpy(packed.sees)[None, None],
            position_ids=torch.from_numpy(packed.positions)[None],
            use_cache=False,
        ).last_hidden_state[0]
        logits = self.model.lm_head(hidden[torch.from_numpy(packed.read_at).reshape(-1)])
        logits = logits.double().log_softmax(-1).reshape(*packed.read_at.shape, -1)
        chosen = logits.gather(2, torch.tensor(output)[None, :, None].expand(len(packed.rows), -1, 1))
        summed: list[float] = chosen.sum(dim=(1, 2)).tolist()
        return summed


def serve(model: Model) -> None:
    routes: dict[str, Callable[..., Any]] = {"render": model.render, "generate": model.generate, "score": model.score}
    with model.torch.inference_mode():
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps(routes[request.pop("do")](**request)), flush=True)


if __name__ == "__main__":
    os.nice(NICENESS)
    serve(Model(sys.argv[1]))
