"""Memory that runs out: the batch is halved, and what fits in no batch is no value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.components import tiny


def limited(model: Any, most: int, error: Exception) -> tuple[Any, list[int]]:
    """A model whose last layer has memory for `most` rows; and the rows of each pass that was tried."""
    tried: list[int] = []

    def check(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        tried.append(len(inputs[0]))
        if len(inputs[0]) > most:
            raise error

    model.model.layers[-1].register_forward_pre_hook(check)
    return model, tried


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
     MemoryError()],
)  # fmt: skip
def test_the_batch_is_halved_until_it_fits(error: Exception) -> None:
    many = tiny.masks(12, 16)
    with tiny.playing() as game:
        expected = game.measure(many).readings
    model, tried = limited(tiny.llama(), 3, error)
    with tiny.playing(model, tokens=2048) as game:
        tried.clear()
        found = game.measure(many)
        np.testing.assert_allclose(found.readings, expected, rtol=1e-4, atol=1e-4)
        assert not found.failures
        assert tried[:3] == [16, 8, 4]
        assert max(tried[3:]) <= 3
        tried.clear()
        game.measure(many)
        assert max(tried) <= 3  # it remembers


def test_a_mask_without_room_fails_and_has_no_value() -> None:
    model, _ = limited(tiny.llama(), 1, MemoryError())
    with tiny.playing(model) as game:
        limited(model, 0, MemoryError())
        found = game.measure(tiny.masks(12, 3))
        assert set(found.failures) == {0, 1, 2}
        assert "out of memory" in found.failures[0]
        assert np.isnan(found.readings).all()


def test_another_error_is_told() -> None:
    model = tiny.llama()
    with tiny.playing(model) as game:
        limited(model, 0, RuntimeError("a broken kernel"))
        with pytest.raises(RuntimeError, match="a broken kernel"):
            game.measure(tiny.masks(12, 3))
