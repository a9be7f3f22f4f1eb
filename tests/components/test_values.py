"""What coalitions of heads and MLP blocks are worth: against transformers alone, and against weights set by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.components import tiny

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2, tiny.gemma2, tiny.cohere, tiny.granite])
@pytest.mark.parametrize("layers", ["all", [1, 3], [2, 3]])
def test_with_nothing_ablated_it_is_the_model(make: Callable[[], Any], layers: Any) -> None:
    model = make()
    answers, contrasts = (tiny.own_logprobs(model, tiny.QUESTIONS, of) for of in ("answer", "contrast"))
    for value, expected in [("logprob", answers), ("logit_difference", answers - contrasts)]:
        with tiny.playing(model, layers=layers, components="both", value=value) as game:
            full = np.ones((2, len(game.rules.players)), dtype=bool)
            np.testing.assert_allclose(game.measure(full).readings, [expected, expected], **CLOSE)


def test_the_difference_of_single_tokens_is_that_of_their_logits() -> None:
    model, question = tiny.llama(), tiny.QUESTIONS[2]
    with tiny.playing(model, questions=[question], value="logit_difference") as game:
        found = game.measure(np.ones((1, 12), dtype=bool)).readings[0, 0]
    words = tiny.tokenizer()
    logits = model(torch.tensor([words.encode(question["prompt"])])).logits[0, -1].detach()
    expected = logits[words.encode(question["answer"])[0]] - logits[words.encode(question["contrast"])[0]]
    assert found == pytest.approx(float(expected), abs=1e-4)


def test_accuracy_is_1_where_the_answer_wins() -> None:
    model = tiny.llama()
    with tiny.playing(model, value="accuracy") as game:
        found = game.measure(np.ones((1, 12), dtype=bool)).readings[0]
    answers, contrasts = (tiny.own_logprobs(model, tiny.QUESTIONS, of) for of in ("answer", "contrast"))
    np.testing.assert_array_equal(found, answers > contrasts)
    words = tiny.tokenizer()
    likeliest = words.decode(int(model(torch.tensor([words.encode("a b")])).logits[0, -1].argmax()))
    asked = [{"prompt": "a b", "answer": word} for word in (likeliest, "a" if likeliest != "a" else "b")]
    with tiny.playing(model, value="accuracy", questions=asked) as game:
        np.testing.assert_array_equal(game.measure(np.ones((1, 12), dtype=bool)).readings, [[1, 0]])


@pytest.mark.parametrize("ablation", ["zero", "mean", "resample"])
def test_a_batch_is_its_masks_one_by_one(ablation: str) -> None:
    with tiny.playing(components="both", ablation=ablation, tokens=60) as game:
        many = tiny.masks(len(game.rules.players), 11)
        together = game.measure(many).readings
        alone = np.concatenate([game.measure(row[None]).readings for row in many])
        np.testing.assert_allclose(together, alone, **CLOSE)
        assert len(np.unique(together[:, 0].round(4))) > 8  # masks differ
        order = np.random.default_rng(1).permutation(11)
        np.testing.assert_allclose(game.measure(many[order]).readings, together[order], **CLOSE)
        twice = game.measure(many[[3, 4, 3]]).readings
        np.testing.assert_array_equal(twice[0], twice[2])


def without_heads(model: Any, removed: list[int], factor: float) -> Any:
    """A copy whose layer 1 does not let some heads through, by its weights; the others times `factor`."""
    other = copy.deepcopy(model)
    weight = other.model.layers[1].self_attn.o_proj.weight.data
    weight *= factor
    for head in removed:
        weight[:, head * tiny.SIZE : (head + 1) * tiny.SIZE] = 0
    return other


@pytest.mark.parametrize(("removed", "factor"), [([2], 4 / 3), ([0, 3], 2.0), ([1, 2, 3], 4.0), ([0, 1, 2, 3], 1.0)])
@pytest.mark.parametrize("rescale", [True, False])
def test_an_ablated_head_is_a_slice_of_weights_set_to_zero(removed: list[int], factor: float, rescale: bool) -> None:
    model = tiny.llama()
    expected = tiny.own_logprobs(without_heads(model, removed, factor if rescale else 1.0), tiny.QUESTIONS)
    for layers, first in [([1, 2], 0), ("all", tiny.HEADS)]:
        with tiny.playing(model, layers=layers, rescale=rescale) as game:
            mask = np.ones((1, len(game.rules.players)), dtype=bool)
            mask[0, [first + head for head in removed]] = False
            names = [player.text for player, kept in zip(game.rules.players, mask[0], strict=True) if not kept]
            assert names == [f"layer 1, head {head}" for head in removed]
            np.testing.assert_allclose(game.measure(mask).readings[0], expected, **CLOSE)


def test_an_ablated_mlp_block_is_its_last_weights_set_to_zero() -> None:
    model = tiny.llama()
    other = copy.deepcopy(model)
    other.model.layers[2].mlp.down_proj.weight.data.zero_()
    with tiny.playing(model, components="mlp") as game:
        assert [player.text for player in game.rules.players] == [f"layer {at}, MLP" for at in range(3)]
        found = game.measure(np.array([[True, True, False]])).readings[0]
    np.testing.assert_allclose(found, tiny.own_logprobs(other, tiny.QUESTIONS), **CLOSE)


def heard(model: Any, text: str) -> torch.Tensor:
    """What layer 1's heads say of a text, (tokens, width), by a hook of the test's own."""
    kept = []
    part = model.model.layers[1].self_attn.o_proj
    handle = part.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0][0].detach().clone()))
    model(torch.tensor([tiny.tokenizer().encode(text)]))
    handle.remove()
    return kept[0]


def replaced(model: Any, head: int, said: Callable[[int], torch.Tensor]) -> Any:
    """A copy whose head of layer 1 says `said(tokens)`, (tokens or 1, SIZE), whatever it is shown."""
    other, columns = copy.deepcopy(model), slice(head * tiny.SIZE, (head + 1) * tiny.SIZE)

    def change(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        changed = inputs[0].clone()
        changed[0, :, columns] = said(changed.shape[1])
        return (changed,)

    other.model.layers[1].self_attn.o_proj.register_forward_pre_hook(change)
    return other


def all_but(head: int) -> np.ndarray:
    mask = np.ones((1, tiny.HEADS), dtype=bool)
    mask[0, head] = False
    return mask


def test_mean_ablation_puts_the_mean_of_all_reference_tokens_there() -> None:
    model, texts = tiny.llama(), ["a b c d", "red of the green"]
    said = torch.cat([heard(model, text) for text in texts]).mean(dim=0)[tiny.SIZE : 2 * tiny.SIZE]
    expected = tiny.own_logprobs(replaced(model, 1, lambda _: said[None]), tiny.QUESTIONS)
    with tiny.playing(model, layers=[1, 2], ablation="mean", reference=texts) as game:
        np.testing.assert_allclose(game.measure(all_but(1)).readings[0], expected, **CLOSE)


def test_resample_ablation_puts_another_texts_activation_there() -> None:
    model, text = tiny.llama(), "one two three red"
    said = heard(model, text)[:, tiny.SIZE : 2 * tiny.SIZE]
    expected = tiny.own_logprobs(
        replaced(model, 1, lambda tokens: said[[min(at, 3) for at in range(tokens)]]), tiny.QUESTIONS
    )
    with tiny.playing(model, layers=[1, 2], ablation="resample", reference=[text]) as game:
        np.testing.assert_allclose(game.measure(all_but(1)).readings[0], expected, **CLOSE)


def test_resample_replaces_no_prompt_by_itself() -> None:
    """Of four questions three have one prompt; and one more begins with it, so that it says the same there."""
    model, asked = tiny.llama(), [{"prompt": "a b c is", "answer": word} for word in ("red", "blue", "green")]
    asked += [{"prompt": "a b c is not", "answer": "one"}, {"prompt": "one two three red", "answer": "d"}]
    said = heard(model, "one two three red")[:, tiny.SIZE : 2 * tiny.SIZE]
    expected = tiny.own_logprobs(replaced(model, 1, lambda tokens: said[:tokens]), asked[:3])
    for seed in range(4):
        with tiny.playing(model, layers=[1, 2], ablation="resample", questions=asked, seed=seed) as game:
            np.testing.assert_allclose(game.measure(all_but(1)).readings[0, :3], expected, **CLOSE)


def test_resample_draws_by_its_seed() -> None:
    found = []
    for seed in (0, 0, 1, 2, 3):
        with tiny.playing(ablation="resample", seed=seed) as game:
            found.append(game.measure(np.zeros((1, 12), dtype=bool)).readings)
    np.testing.assert_allclose(found[0], found[1])
    assert any(not np.allclose(found[0], other) for other in found[2:])


def test_one_weight_changes_values_and_digest() -> None:
    model, other = tiny.llama(), tiny.llama()
    other.model.layers[1].self_attn.v_proj.weight.data[0, 0] += 1.0
    mask = tiny.masks(12, 4)
    with tiny.playing(model) as game, tiny.playing(other) as changed, tiny.playing(tiny.llama()) as same:
        assert not np.allclose(game.measure(mask).readings, changed.measure(mask).readings)
        np.testing.assert_allclose(game.measure(mask).readings, same.measure(mask).readings)
        assert game.rules.digest == same.rules.digest != changed.rules.digest


@pytest.mark.parametrize(
    "other",
    [{"layers": [0, 2]}, {"value": "accuracy"}, {"ablation": "mean"}, {"rescale": False}, {"components": "both"},
     {"questions": tiny.QUESTIONS[::-1]}],
)  # fmt: skip
def test_what_fixes_values_is_in_the_digest(other: dict[str, Any]) -> None:
    with tiny.playing() as game, tiny.playing(**other) as changed:
        assert game.rules.digest != changed.rules.digest


def test_bfloat16_is_close() -> None:
    model = tiny.llama()
    with tiny.playing(model, layers=[1, 3]) as game:
        exact = game.measure(np.ones((1, 8), dtype=bool)).readings
    with tiny.playing(model.to(torch.bfloat16), layers=[1, 3], dtype="bfloat16") as game:
        np.testing.assert_allclose(game.measure(np.ones((1, 8), dtype=bool)).readings, exact, rtol=0.05, atol=0.2)
