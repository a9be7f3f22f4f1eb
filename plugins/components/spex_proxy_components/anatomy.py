"""Where a model's parts are: its layers, what joins the heads of each, its MLP blocks, what makes logits at the end.

Found by the names that transformers' decoders use. What is found wrongly does not stay hidden: before a game begins,
the whole way is compared with the model's own (`opening.compared`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

ATTENTION = ("self_attn", "self_attention", "attention", "attn")
JOINING = ("o_proj", "out_proj", "dense", "c_proj")
"""The projection from the heads' outputs, side by side, into the hidden state."""
MLP = ("mlp", "feed_forward", "block_sparse_moe")
LAST_NORM = ("norm", "final_layernorm", "final_layer_norm", "ln_f")


@dataclass(frozen=True, slots=True)
class Ending:
    """What a model does to its head's logits, as its configuration says."""

    factor: float = 1.0
    cap: float | None = None
    """What no logit passes: they become cap * tanh(logit / cap)."""

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        scaled = logits if self.factor == 1.0 else logits * self.factor
        return scaled if self.cap is None else self.cap * torch.tanh(scaled / self.cap)


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """A causal language model, taken apart."""

    body: nn.Module
    """All but the output head: token ids to hidden states."""
    layers: Sequence[nn.Module]
    joining: Sequence[nn.Module]
    """Of each layer: its input is (rows, tokens, heads * head size), the heads side by side."""
    mlps: Sequence[nn.Module | None]
    """Of each layer; None where none was found."""
    norm: nn.Module
    head: nn.Module
    """Hidden states to logits."""
    ending: Ending
    n_heads: int
    """Query heads. With grouped-query attention several of them share keys and values, but each has an output of its
    own, and that is what is kept or ablated."""
    shared_heads: int
    """How many of them share one set of keys and values; 1 without grouped-query attention."""

    def check(self, first: int, stop: int, wants_mlp: bool) -> None:
        """Raises ValueError for layers that are not there, heads that don't divide, and missing MLP blocks."""
        if not 0 <= first < stop <= len(self.layers):
            raise ValueError(f"`layers` is [{first}, {stop}], but the model has layers 0 to {len(self.layers) - 1}")
        for number in range(first, stop):
            width = joined_width(self.joining[number])
            if width % self.n_heads:
                raise ValueError(
                    f"layer {number}: {width} numbers come from the heads, and {self.n_heads} heads don't divide them; "
                    "which belong to which head is unknown"
                )
            if wants_mlp and self.mlps[number] is None:
                raise ValueError(
                    f"layer {number} has no MLP block under one of the names {', '.join(MLP)}; ask for heads"
                )


def joined_width(joining: nn.Module) -> int:
    """Length of its input; `nf` and `nx` are GPT-2's words."""
    width: Any = getattr(joining, "in_features", None) or joining.nx
    return int(width)


def take_apart(model: Any) -> Anatomy:
    """Raises ValueError, naming what was looked for, for a model that is built otherwise."""
    config = model.config.get_text_config()
    n_layers, n_heads = (int(getattr(config, name, 0) or 0) for name in ("num_hidden_layers", "num_attention_heads"))
    lists = [
        (path, part)
        for path, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == n_layers
    ]
    lists = [(path, part) for path, part in lists if n_layers and part_of(part[0], ATTENTION) is not None]
    if not lists or not n_heads:
        raise ValueError(
            f"{type(model).__name__} has no list of {n_layers} layers with attention under one of the names "
            f"{', '.join(ATTENTION)}; its heads can't be found"
        )
    path, layers = lists[0]
    body = model.get_submodule(path.rpartition(".")[0])
    joining = [joining_of(layer, number) for number, layer in enumerate(layers)]
    norm, head = part_of(body, LAST_NORM), model.get_output_embeddings()
    if norm is None or head is None:
        raise ValueError(f"{type(model).__name__} has no last norm ({', '.join(LAST_NORM)}) or no output head")
    mlps = [part_of(layer, MLP) for layer in layers]
    shared = n_heads // int(getattr(config, "num_key_value_heads", 0) or n_heads)
    return Anatomy(body, list(layers), joining, mlps, norm, head, ending_of(config), n_heads, shared)


def ending_of(config: Any) -> Ending:
    """By the names of Cohere (`logit_scale`), Granite (`logits_scaling`, which divides) and Gemma; a model that means
    something else by them is refused when its pass is compared."""
    factor = number_of(config, "logit_scale") or 1.0
    return Ending(factor / (number_of(config, "logits_scaling") or 1.0), number_of(config, "final_logit_softcapping"))


def number_of(config: Any, name: str) -> float | None:
    """None for what is not there, is 0, or is a word, as MPT's `logit_scale` may be."""
    found = getattr(config, name, None)
    return float(found) if isinstance(found, int | float) and found else None


def part_of(module: nn.Module, names: Sequence[str]) -> nn.Module | None:
    for name in names:
        part = getattr(module, name, None)
        if isinstance(part, nn.Module):
            return part
    return None


def joining_of(layer: nn.Module, number: int) -> nn.Module:
    attention = part_of(layer, ATTENTION)
    found = part_of(attention, JOINING) if attention is not None else None
    if found is None or not (hasattr(found, "in_features") or hasattr(found, "nx")):
        parts = [name for name, _ in attention.named_children()] if attention is not None else []
        raise ValueError(
            f"layer {number}: its attention has no projection {', '.join(JOINING)} behind its heads, only "
            f"{', '.join(parts) or 'no parts at all'}; attention that is fused to one piece can't be ablated by head"
        )
    return found


def tensors_of(given: object) -> torch.Tensor:
    """A layer's or a block's output: itself, or the first of what it returns."""
    first = given[0] if isinstance(given, tuple) else given
    if not isinstance(first, torch.Tensor):
        raise TypeError(f"a block returned {type(given).__name__}, not a tensor")
    return first
