"""What masks do inside a forward pass: hooks that ablate each row's own heads and MLP blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spex_proxy_components.anatomy import Anatomy, tensors_of

Masks = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Layout:
    """Which player is what: layer by layer, its heads, then its MLP block."""

    first: int
    """The first layer that may be ablated."""
    stop: int
    n_heads: int
    """Players of each layer that are heads: all its query heads, or 0."""
    has_mlp: bool

    @property
    def per_layer(self) -> int:
        return self.n_heads + self.has_mlp

    def __len__(self) -> int:
        return (self.stop - self.first) * self.per_layer

    def split(self, masks: Masks) -> tuple[Masks, Masks]:
        """Masks (m, n) -> heads (m, layers, heads) and MLP blocks (m, layers or 0)."""
        by_layer = masks.reshape(len(masks), self.stop - self.first, self.per_layer)
        return by_layer[:, :, : self.n_heads], by_layer[:, :, self.n_heads :].reshape(len(masks), -1)


def scales(kept: Masks, rescale: bool) -> NDArray[np.float32]:
    """Heads (m, layers, heads) -> the factor of each head's output.

    With `rescale`, what is kept of a layer is multiplied by heads over kept heads, |H| / |S and H| (Butler et al. 2025,
    arXiv 2505.17495, C.2), so that a layer with fewer heads says no less in all; a layer without any says nothing.
    """
    factors = kept.astype(np.float32)
    if rescale:
        factors *= kept.shape[2] / np.maximum(kept.sum(axis=2, keepdims=True), 1).astype(np.float32)
    return factors


@dataclass(frozen=True, slots=True, eq=False)
class Fill:
    """What stands in the place of ablated outputs, for each ablated layer; (1 or tokens, width)."""

    heads: Sequence[torch.Tensor]
    mlps: Sequence[torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One batch's masks, on their way into the hooks."""

    heads: torch.Tensor
    """Factors (rows, layers, heads); heads may be 0."""
    mlps: torch.Tensor
    """Factors (rows, layers), or no column."""
    fill: Fill | None
    """None: zero."""


class Hooks:
    """Hooks on a model's ablated layers. `cut` is what they do to the next pass; None leaves it alone.

    A pass begins with one row that all masks share, or with a row for each. What a cut multiplies has a row for each
    mask from then on: what the first ablated layer does before its cut is done once.
    """

    def __init__(self, anatomy: Anatomy, layout: Layout) -> None:
        self.cut: Cut | None = None
        self._n_heads = anatomy.n_heads
        self._handles = []
        for at, number in enumerate(range(layout.first, layout.stop)):
            if layout.n_heads:
                hook = anatomy.joining[number].register_forward_pre_hook(self._heads_hook(at))
                self._handles.append(hook)
            mlp = anatomy.mlps[number]
            if layout.has_mlp and mlp is not None:
                self._handles.append(mlp.register_forward_hook(self._mlp_hook(at)))

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _heads_hook(self, at: int) -> Callable[..., Any]:
        def ablate(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
            if self.cut is None:
                return None
            joined = inputs[0]
            rows, tokens, width = joined.shape
            factors = self.cut.heads[:, at].to(joined)[:, None, :, None]
            by_head = joined.view(rows, tokens, self._n_heads, width // self._n_heads)
            fill = (
                self.cut.fill.heads[at].to(joined).view(1, -1, self._n_heads, by_head.shape[3])
                if self.cut.fill
                else None
            )
            return (mixed(by_head, factors, fill).reshape(-1, tokens, width), *inputs[1:])

        return ablate

    def _mlp_hook(self, at: int) -> Callable[..., Any]:
        def ablate(_: nn.Module, __: object, output: object) -> object:
            if self.cut is None:
                return None
            said = tensors_of(output)
            factors = self.cut.mlps[:, at].to(said)[:, None, None]
            left = mixed(said, factors, self.cut.fill.mlps[at].to(said)[None] if self.cut.fill else None)
            return (left, *output[1:]) if isinstance(output, tuple) else left

        return ablate


def mixed(said: torch.Tensor, factors: torch.Tensor, fill: torch.Tensor | None) -> torch.Tensor:
    """What a part said where it is kept; the fill, or nothing, where it is not."""
    return said * factors if fill is None else said * factors + fill * (1 - factors)


class Listening:
    """While it lasts, what heads and MLP blocks say is kept: to make a `Fill` of."""

    def __init__(self, anatomy: Anatomy, layout: Layout) -> None:
        self.heads: list[torch.Tensor] = []
        """Of each ablated layer in turn, for every pass: (tokens, width). Passes follow each other."""
        self.mlps: list[torch.Tensor] = []
        self._anatomy, self._layout = anatomy, layout
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Listening:
        for number in range(self._layout.first, self._layout.stop):
            joining, mlp = self._anatomy.joining[number], self._anatomy.mlps[number]
            if self._layout.n_heads:
                hook = joining.register_forward_pre_hook(lambda _, inputs: self.heads.append(inputs[0][0].clone()))
                self._handles.append(hook)
            if self._layout.has_mlp and mlp is not None:
                hook = mlp.register_forward_hook(lambda _, __, out: self.mlps.append(tensors_of(out)[0].clone()))
                self._handles.append(hook)
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
