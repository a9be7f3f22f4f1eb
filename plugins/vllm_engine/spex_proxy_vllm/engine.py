"""vLLM's engine, asked in process. The only module that knows vLLM's inner names; written for 0.32.

Log-probabilities of prompt tokens switch the prefix cache off for reading, unless the request says otherwise;
saying so leaves rows that the cache covered uncomputed. They are never believed:

- V2 runner: `prompt_logprob_token_ids` computes exactly the answer's rows, and gives nothing at all if one is covered.
- V1 runner: `prompt_logprobs` gives a row for each prompt token, those that were covered with whatever was in
  memory. The last k are real only if at most p - 1 tokens of the prompt's p were read from the cache.
"""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm import SamplingParams
from vllm.inputs import TokensPrompt
from vllm.sampling_params import RequestOutputKind

from spex_proxy_vllm.asked import Asked
from spex_proxy_vllm.scoring import Answer, Failed

_BUSY = ("QueueOverflowError", "MaxQueuedTokensError", "EngineDeadError")
"""What passes, or ends with a restart."""


class InProcess:
    """`engine_client.generate`, one request a prompt."""

    def __init__(self, client: Any, lora_request: Any | None = None) -> None:
        self._client = client
        self._lora_request = lora_request
        self._has_v2 = runs_v2(client)

    async def ask(self, prompt: list[int], asked: Asked, *, whole: bool) -> Answer:
        ids = [*prompt, *asked.output_ids]
        last = None
        try:
            stream = self._client.generate(
                TokensPrompt(prompt_token_ids=ids, cache_salt=asked.cache_salt),
                self._parameters(len(prompt), asked, whole),
                f"spex-{uuid.uuid4().hex}",
                lora_request=self._lora_request,
                priority=asked.priority,
            )
            async for output in stream:
                last = output
        except Exception as error:  # whatever the engine raises is one mask's failure, never the server's
            raise Failed(f"{type(error).__name__}: {error}"[:300], again=type(error).__name__ in _BUSY) from error
        if last is None:
            raise Failed("the engine ended the request without an answer", again=True)
        if last.outputs and last.outputs[0].finish_reason == "abort":  # it is being shut down, or put to sleep
            raise Failed("the engine aborted the request", again=True)
        cached = last.num_cached_tokens or 0
        read = self._v2_rows if self._has_v2 else self._v1_rows
        return Answer(read(last, len(prompt), asked.output_ids, cached), len(ids), cached)

    def _parameters(self, prompt: int, asked: Asked, whole: bool) -> SamplingParams:
        common: dict[str, Any] = {
            "max_tokens": 1,
            "temperature": 0,
            "detokenize": False,
            "skip_reading_prefix_cache": whole,
            "output_kind": RequestOutputKind.FINAL_ONLY,
            "extra_args": asked.extra(),
        }
        if self._has_v2:
            rows = [[token] for token in asked.output_ids]
            return SamplingParams(prompt_logprob_token_ids=rows, prompt_logprob_start=prompt - 1, **common)
        return SamplingParams(prompt_logprobs=0, flat_logprobs=True, **common)

    @staticmethod
    def _v2_rows(output: Any, _: int, output_ids: tuple[int, ...], __: int) -> NDArray[np.float32] | None:
        rows = output.prompt_token_id_logprobs
        if rows is None or rows.shape != (len(output_ids), 1):
            return None
        return np.asarray(rows[:, 0], dtype=np.float32)

    @staticmethod
    def _v1_rows(output: Any, prompt: int, output_ids: tuple[int, ...], cached: int) -> NDArray[np.float32] | None:
        rows = output.prompt_logprobs
        if cached > prompt - 1 or rows is None or len(rows) != prompt + len(output_ids):
            return None
        entries = ((rows[prompt + number] or {}).get(token) for number, token in enumerate(output_ids))
        found = [entry.logprob for entry in entries if entry is not None]
        return np.asarray(found, dtype=np.float32) if len(found) == len(output_ids) else None


def runs_v2(client: Any) -> bool:
    """Whether the engine takes `prompt_logprob_token_ids`."""
    config = client.vllm_config
    is_known = "prompt_logprob_token_ids" in SamplingParams.__struct_fields__
    is_off = getattr(config.cache_config, "kv_sharing_fast_prefill", False)
    return bool(is_known and getattr(config, "use_v2_model_runner", False) and not is_off)
