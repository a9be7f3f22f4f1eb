"""Heads ablated request by request in a real vLLM: what transformers says with hooks of its own, and nobody else's.

The server computes in float32 here, so that both can be compared to a thousandth.
"""

from __future__ import annotations

import base64
import functools
import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from deploy.demo.vllm_install import MODEL

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(900)]

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LAYERS, HEADS = (10, 14), 9
IDS = list(range(1000, 1070))
"""Two whole blocks of the prefix cache, and a part of a third."""
ANSWER = [300, 301, 302]
ENOUGH_S = 300


def head_masks() -> np.ndarray:
    """All kept; one head gone; a layer gone; random ones; the last once more."""
    random = np.random.default_rng(5).random((4, (LAYERS[1] - LAYERS[0]) * HEADS)) < 0.5
    made = np.concatenate([np.ones((3, random.shape[1]), dtype=np.bool_), random, random[-1:]])
    made[1, 3] = False
    made[2, HEADS : 2 * HEADS] = False
    return made


MASKS = head_masks()


def post(url: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(url, json=body, trust_env=False, timeout=ENOUGH_S)


def values(response: httpx.Response) -> list[list[float]]:
    """Log-probabilities by mask; the test fails on any error."""
    assert response.status_code == 200, response.text
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert lines[-1] == {"done": len(lines) - 1}
    found = {line["mask"]: np.frombuffer(base64.b64decode(line["logprobs"]), "<f4").tolist() for line in lines[:-1]}
    return [found[number] for number in range(len(found))]


def asked(**changes: Any) -> dict[str, Any]:
    return {
        "model": "smollm2", "ids": IDS, "output_ids": ANSWER, "layers": list(LAYERS), "count": len(MASKS),
        "masks": base64.b64encode(np.packbits(MASKS, axis=1).tobytes()).decode(), "rescale": True, "priority": 100,
        "cache_salt": "a salt of its own", "in_flight": 4,
    } | changes  # fmt: skip


def plain(url: str, salt: str) -> list[float]:
    """Nothing ablated, by the plugin's other route."""
    body = {
        "model": "smollm2", "ids": IDS, "output_ids": ANSWER, "segments": [], "masks": "", "count": 1, "priority": 0,
        "cache_salt": salt, "in_flight": 1, "warm": False, "yields": False,
    }  # fmt: skip
    return values(post(f"{url}/v1/spex/score", body))[0]


@functools.cache
def hooked() -> tuple[Any, dict[int, Any]]:
    """transformers' model, and for each layer the factors of its heads where they enter the output projection."""
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    factors: dict[int, Any] = {}

    def hook(layer: int) -> Any:
        def ablate(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            by_head = inputs[0].unflatten(-1, (HEADS, -1))
            return ((by_head * factors[layer][:, None]).flatten(-2),)

        return ablate

    for layer in range(*LAYERS):
        model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(hook(layer))
    return model, factors


def by_transformers(masks: np.ndarray, rescale: bool) -> list[list[float]]:
    """One forward pass a mask."""
    model, factors = hooked()
    found = []
    for mask in masks.reshape(len(masks), -1, HEADS):
        for layer, kept in zip(range(*LAYERS), mask, strict=True):
            factor = HEADS / max(int(kept.sum()), 1) if rescale else 1.0
            factors[layer] = torch.tensor(kept * factor, dtype=torch.float32)
        with torch.inference_mode():
            logits = model(torch.tensor([IDS + ANSWER])).logits[0, len(IDS) - 1 : -1].log_softmax(-1)
        found.append([float(logits[at, token]) for at, token in enumerate(ANSWER)])
    return found


@pytest.mark.parametrize("rescale", [True, False])
def test_ablated_values_are_those_of_transformers(second_vllm: str, rescale: bool) -> None:
    ours = values(post(f"{second_vllm}/v1/spex/ablate", asked(rescale=rescale)))
    theirs = by_transformers(MASKS, rescale)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    sums = [math.fsum(each) for each in theirs]
    assert max(sums) - min(sums) > 1  # the heads matter


def test_production_in_the_same_steps_and_after_reads_nothing_of_it(second_vllm: str) -> None:
    """Same prompt, same salt as was sent: neither the rows of a step nor cached blocks are shared."""
    before = by_transformers(MASKS[:1], rescale=True)[0]
    with ThreadPoolExecutor(4) as pool:
        works = pool.submit(post, f"{second_vllm}/v1/spex/ablate", asked(rescale=False, cache_salt="shared"))
        meanwhile = [pool.submit(plain, second_vllm, salt) for salt in ("shared", "another", "shared")]
        ablated = values(works.result())
        seen = [each.result() for each in meanwhile]
    for one in [*seen, plain(second_vllm, "shared"), plain(second_vllm, "a salt of its own")]:
        np.testing.assert_allclose(one, before, atol=2e-3)
    assert abs(math.fsum(ablated[3]) - math.fsum(before)) > 0.1


def test_what_is_refused(second_vllm: str) -> None:
    for salt in ("", None):
        refused = post(f"{second_vllm}/v1/spex/ablate", asked(cache_salt=salt))
        assert refused.status_code == 400
        assert "salt of their own" in refused.text


def test_an_ordinary_client_cannot_ablate(second_vllm: str) -> None:
    """Extra arguments reach the worker from every route; without the secret they are not believed."""
    told = {"secret": "", "first": 0, "heads": base64.b64encode(bytes(34)).decode(), "count": 270, "rescale": False}
    body = {"model": "smollm2", "prompt": IDS, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    usual = post(f"{second_vllm}/v1/completions", body).json()
    tried = post(f"{second_vllm}/v1/completions", body | {"vllm_xargs": {"spex_ablation": json.dumps(told)}}).json()
    assert usual["choices"][0]["text"] == tried["choices"][0]["text"]


def test_a_usual_server_says_what_it_needs(vllm: str) -> None:
    refused = post(f"{vllm}/v1/spex/ablate", asked())
    assert refused.status_code == 400
    assert "--enforce-eager --worker-extension-cls spex_proxy_vllm.ablation.Ablation" in refused.text
