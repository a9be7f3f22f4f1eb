"""Passes of many masks at once: the layers below the first ablated one run once, and what they say is kept.

A pack (`packing`) goes through the whole model once, unablated. What the model hands its first ablated layer, and with
which arguments it calls this and every later layer (positions, attention mask), is recorded. A batch of masks then
begins there: one row of the batch for each mask, all rows with the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spex_proxy_components.ablation import Cut, Fill, Hooks, Layout, Listening, Masks, scales
from spex_proxy_components.anatomy import Anatomy, tensors_of
from spex_proxy_components.packing import ANSWER, CONTRAST, Pack
from spex_proxy_components.settings import Reading

Readings = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A pack, up to the first ablated layer."""

    pack: Pack
    hidden: torch.Tensor
    """What the first ablated layer is given, (1, tokens, width)."""
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    """How the model calls that layer and each later one, but for the hidden state."""
    fill: Fill | None
    """What stands in the place of ablated outputs; None: nothing."""


class Recorder:
    """While it lasts, how a model calls its layers is kept."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.hidden: list[torch.Tensor] = []
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._handles = [layer.register_forward_pre_hook(self._keep, with_kwargs=True) for layer in layers]

    def _keep(self, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if not arguments:
            raise ValueError("this model calls its layers by keyword alone; that is not understood")
        self.hidden.append(arguments[0])
        self.calls.append((arguments[1:], dict(named)))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def prepare(anatomy: Anatomy, layout: Layout, pack: Pack, fill: Fill | None, dtype: torch.dtype) -> Prepared:
    """One unablated pass of a pack."""
    device = next(anatomy.body.parameters()).device
    blocked = torch.zeros((1, 1, len(pack), len(pack)), dtype=dtype, device=device)
    blocked.masked_fill_(~torch.from_numpy(pack.sees).to(device), torch.finfo(dtype).min)
    with torch.inference_mode(), Recorder(anatomy.layers[layout.first :]) as recorder:
        anatomy.body(
            input_ids=torch.from_numpy(pack.tokens)[None].to(device),
            position_ids=torch.from_numpy(pack.depths)[None].to(device),
            attention_mask=blocked,
            use_cache=False,
        )
    return Prepared(pack, recorder.hidden[0], tuple(recorder.calls), fill)


def listened(anatomy: Anatomy, layout: Layout, texts: Sequence[Sequence[int]]) -> list[Fill]:
    """What the parts say in unablated passes over reference texts, one `Fill` a text, (tokens, width) each."""
    device = next(anatomy.body.parameters()).device
    fills = []
    for ids in texts:
        with torch.inference_mode(), Listening(anatomy, layout) as heard:
            anatomy.body(input_ids=torch.as_tensor([list(ids)], device=device), use_cache=False)
        fills.append(Fill(heard.heads, heard.mlps))
    return fills


def average(fills: Sequence[Fill]) -> Fill:
    """The mean over all tokens of all texts, (1, width) each; summed in float64."""

    def mean(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        total = torch.stack([part.to(torch.float64).sum(dim=0) for part in parts]).sum(dim=0)
        return (total / sum(len(part) for part in parts))[None].to(parts[0].dtype)

    layers, mlps = len(fills[0].heads), len(fills[0].mlps)
    return Fill(
        [mean([fill.heads[at] for fill in fills]) for at in range(layers)],
        [mean([fill.mlps[at] for fill in fills]) for at in range(mlps)],
    )


def aligned(fill: Fill, pack: Pack) -> Fill:
    """A reference text's outputs at the positions of a pack's tokens; behind its end, those of its last token."""

    def at(part: torch.Tensor) -> torch.Tensor:
        return part[torch.from_numpy(np.minimum(pack.depths, len(part) - 1)).to(part.device)]

    return Fill([at(part) for part in fill.heads], [at(part) for part in fill.mlps])


def run(
    anatomy: Anatomy, layout: Layout, hooks: Hooks, prepared: Prepared, masks: Masks, reading: Reading, rescale: bool
) -> Readings:
    """Masks (m, n) -> readings of a pack's questions (m, q), in one pass of m rows."""
    with torch.inference_mode():
        return read(anatomy, passed(anatomy, layout, hooks, prepared, masks, rescale), prepared.pack, reading)


def passed(
    anatomy: Anatomy, layout: Layout, hooks: Hooks, prepared: Prepared, masks: Masks, rescale: bool
) -> torch.Tensor:
    """Masks (m, n) -> what the last layer says, (m, tokens, width)."""
    heads, mlps = layout.split(masks)
    device = prepared.hidden.device
    hooks.cut = Cut(
        torch.from_numpy(scales(heads, rescale)).to(device),
        torch.from_numpy(mlps.astype(np.float32)).to(device),
        prepared.fill,
    )
    try:
        hidden = prepared.hidden  # one row, until the first cut makes a row of each mask
        for layer, (arguments, named) in zip(anatomy.layers[layout.first :], prepared.calls, strict=True):
            hidden = tensors_of(layer(hidden, *arguments, **named))
    finally:
        hooks.cut = None
    return hidden


def logits_at(anatomy: Anatomy, hidden: torch.Tensor, places: NDArray[np.int64]) -> torch.Tensor:
    """Last hidden states (m, tokens, width) -> logits (m, s, vocabulary) at s places, and nowhere else."""
    hidden = hidden[:, torch.from_numpy(places).to(hidden.device)]
    return anatomy.ending(anatomy.head(anatomy.norm(hidden))).float()


def read(anatomy: Anatomy, hidden: torch.Tensor, pack: Pack, reading: Reading) -> Readings:
    """Last hidden states (m, tokens, width) -> one number for each of the pack's questions, (m, q)."""
    places, where = np.unique(pack.places, return_inverse=True)
    logits = logits_at(anatomy, hidden, places)
    at, wanted = torch.from_numpy(where).to(logits.device), torch.from_numpy(pack.wanted).to(logits.device)
    likely = logits[:, at, wanted] - logits.logsumexp(dim=-1)[:, at]
    is_first = logits.argmax(dim=-1)[:, at] == wanted
    return readings(likely.cpu().numpy(), is_first.cpu().numpy(), pack, reading)


def readings(likely: Readings, is_first: NDArray[np.bool_], pack: Pack, reading: Reading) -> Readings:
    """Log-probabilities (m, s) at the pack's places, and whether no token was likelier there -> (m, q).

    logprob             of the answer, the sum over its tokens, in nats
    logit_difference    logprob of the answer less that of the contrast; of single tokens that is logit less logit
    accuracy            1 if the answer is likelier than the contrast; without one, if no other token is likelier than
                        any of the answer's, so that greedy decoding would say it; else 0
    """
    out = np.zeros((len(likely), len(pack.questions)), dtype=np.float32)
    for owner in range(len(pack.questions)):
        mine, theirs = ((pack.owners == owner) & (pack.sides == side) for side in (ANSWER, CONTRAST))
        answer = likely[:, mine].sum(axis=1, dtype=np.float64)
        contrast = likely[:, theirs].sum(axis=1, dtype=np.float64)
        if reading == "logprob":
            out[:, owner] = answer
        elif reading == "logit_difference":
            out[:, owner] = answer - contrast
        else:
            out[:, owner] = answer > contrast if theirs.any() else is_first[:, mine].all(axis=1)
    return out
