"""Per-request head ablation inside a vLLM worker. Off, unless the server is started with

    --enforce-eager --worker-extension-cls spex_proxy_vllm.ablation.Ablation

A hook on the input of each layer's output projection multiplies the heads of an ablated request's tokens by its mask;
all other tokens of the same step are left as they are. It must run in eager mode: a compiled graph was traced without
it. Written for vLLM 0.32's V1 model runner, on one device. It costs each step a look at the batch, and every server
the speed of its graphs: for a server beside production, or a night.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spex_proxy_vllm.ablating import HOW
from spex_proxy_vllm.heads import KEY

ATTENTION = ("self_attn", "self_attention", "attention", "attn")
JOINING = ("o_proj", "out_proj", "dense", "c_proj")

Factors = NDArray[np.float32]
Rows = tuple[int, int, int, Factors]
"""Of one ablated request: its tokens [start, stop) of this step, its first ablated layer, factors (layers, heads)."""


class Ablation:
    """Mixed into vLLM's worker."""

    model_runner: Any
    vllm_config: Any

    def spex_ablation(self, secret: str) -> dict[str, Any]:
        """Put the hooks in place, once, and believe requests that name this secret.

        Returns `n_layers` and `n_heads`, or `refused`: why this server can't ablate.
        """
        hooks: HeadHooks | None = getattr(self, "_spex_hooks", None)
        if hooks is None:
            why = refusal(self.vllm_config) or uncertain(self.model_runner.get_model(), self.vllm_config)
            if why:
                return {"refused": why}
            hooks = HeadHooks(self.model_runner, *parts(self.model_runner.get_model(), self.vllm_config))
            self._spex_hooks = hooks
        hooks.secrets.add(secret)
        return {"n_layers": hooks.n_layers, "n_heads": hooks.n_heads}


def refusal(config: Any) -> str | None:
    """Why a server of this configuration can't ablate; None if it can."""
    parallel = config.parallel_config
    if not config.model_config.enforce_eager:
        return f"head ablation needs eager mode: {HOW}"
    if getattr(config, "use_v2_model_runner", False):
        return "head ablation is written for the V1 model runner: set VLLM_USE_V2_MODEL_RUNNER=0"
    sizes = (parallel.tensor_parallel_size, parallel.pipeline_parallel_size, parallel.data_parallel_size)
    if sizes != (1, 1, 1):
        return "head ablation is written for one device, without tensor, pipeline or data parallelism"
    return None


def parts(model: Any, config: Any) -> tuple[list[Any], int]:
    """The projections behind the heads, layer by layer, and how many query heads there are.

    No projection where it is uncertain which ones they are: a vision tower has layers too.
    """
    wanted = int(config.model_config.hf_text_config.num_hidden_layers)
    stacks: dict[str, dict[int, Any]] = {}
    for path, module in model.named_modules():
        at = re.fullmatch(rf"(.*?)\.(\d+)\.(?:{'|'.join(ATTENTION)})\.(?:{'|'.join(JOINING)})", path)
        if at:
            stacks.setdefault(at[1], {})[int(at[2])] = module
    fitting = [stack for stack in stacks.values() if sorted(stack) == list(range(wanted))]
    found = [fitting[0][number] for number in range(wanted)] if len(fitting) == 1 else []
    return found, int(config.model_config.hf_text_config.num_attention_heads)


def uncertain(model: Any, config: Any) -> str | None:
    """Why it is unknown where this model's heads are; None if it is known."""
    joining, n_heads = parts(model, config)
    if not joining:
        return "this model has no one stack of layers with a projection behind its heads under a known name"
    if any(int(getattr(each, "input_size", 0)) % n_heads or not getattr(each, "input_size", 0) for each in joining):
        return f"{n_heads} heads don't divide what the projections take"
    return None


class HeadHooks:
    """Hooks on all projections. A step without an ablated request passes as it is."""

    def __init__(self, runner: Any, joining: Sequence[Any], n_heads: int) -> None:
        self.secrets: set[str] = set()
        self.n_layers, self.n_heads = len(joining), n_heads
        self._runner = runner
        self._rows: list[Rows] = []
        for at, module in enumerate(joining):
            module.register_forward_pre_hook(self._hook(at))

    def _hook(self, at: int) -> Callable[..., Any]:
        def ablate(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
            if at == 0:  # layers run in order: what the batch holds is looked up once a step
                self._rows = rows(self._runner, self.secrets, self.n_heads)
            here = [each for each in self._rows if 0 <= at - each[2] < len(each[3])]
            if not here:
                return None
            joined = inputs[0].clone()
            for start, stop, first, factors in here:
                by_head = joined[start:stop].unflatten(-1, (self.n_heads, -1))
                by_head *= torch.from_numpy(factors[at - first]).to(joined)[:, None]
            return (joined, *inputs[1:])

        return ablate


def rows(runner: Any, secrets: set[str], n_heads: int) -> list[Rows]:
    """The ablated requests of the step that the V1 runner is about to compute."""
    found = []
    bounds = runner.query_start_loc.np
    for number, request in enumerate(runner.input_batch.req_ids):
        parameters = runner.requests[request].sampling_params
        told = ((parameters.extra_args if parameters else None) or {}).get(KEY)
        if isinstance(told, Mapping) and told.get("secret") in secrets:
            factors = scales(told, n_heads)
            found.append((int(bounds[number]), int(bounds[number + 1]), int(told["first"]), factors))
    return found


def scales(told: Mapping[str, Any], n_heads: int) -> Factors:
    """One mask, as `heads.AskedHeads.told` packs it -> factors (layers, heads). A layer without heads says nothing."""
    packed = np.frombuffer(base64.b64decode(told["heads"]), dtype=np.uint8)
    kept = np.unpackbits(packed, count=int(told["count"])).reshape(-1, n_heads).astype(np.float32)
    if told["rescale"]:
        kept *= n_heads / np.maximum(kept.sum(axis=1, keepdims=True), 1)
    return kept
