"""Per-request head ablation in the plugin: what is asked, whom the worker believes, which rows it touches."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from types import SimpleNamespace as Made
from typing import Any

import numpy as np
import pytest

from spex_proxy_vllm.ablating import EXTENSION, prepared
from spex_proxy_vllm.asked import BadRequest, check
from spex_proxy_vllm.heads import KEY, AskedHeads, Ready, Refused, read_heads

torch = pytest.importorskip("torch")
from spex_proxy_vllm import ablation  # noqa: E402 - it needs torch

READY = Ready(n_layers=3, n_heads=4, secret="s3cret")
MASKS = np.array([[1] * 8, [1, 0, 1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0, 0, 1]], dtype=np.bool_)


def body(**changes: Any) -> bytes:
    asked = {
        "model": "m", "ids": [5, 6, 7], "output_ids": [8], "layers": [1, 3], "count": 3, "rescale": True,
        "masks": base64.b64encode(np.packbits(MASKS, axis=1).tobytes()).decode(), "priority": 9, "cache_salt": "mine",
        "in_flight": 2,
    }  # fmt: skip
    return json.dumps(asked | changes).encode()


def test_every_mask_is_asked_under_a_salt_of_its_own() -> None:
    asked = read_heads(body(), READY)
    check(asked, longest_prompt=5, vocabulary=9)
    alone = [asked.alone(number) for number in range(3)]
    assert [asked.prompt(number) for number in range(3)] == [[5, 6, 7]] * 3
    salts = {each.cache_salt for each in alone}
    assert len(salts) == 3
    assert "mine" not in salts
    assert {each.cache_salt for each in map(asked.alone, range(3))} == salts  # the same mask again finds its blocks
    others = [read_heads(body(cache_salt="yours"), READY), read_heads(body(rescale=False), READY)]
    others.append(read_heads(body(), Ready(3, 4, "another")))
    assert not salts & {each.alone(0).cache_salt for each in others}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cache_salt": ""}, "salt of their own"),
        ({"cache_salt": None}, "salt of their own"),
        ({"cache_salt": "s" * 1025}, "cache_salt must be"),
        ({"layers": [2, 4]}, r"layers \[2, 4\] are not among"),
        ({"layers": [2, 2]}, "are not among"),
        ({"layers": 2}, r"\[first, stop\]"),
        ({"layers": [0, 3]}, "3 rows of 2 bytes"),
        ({"rescale": 1}, "rescale must be"),
        ({"segments": []}, "and no others"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        read_heads(body(**changes), READY)


@dataclass
class Client:
    """As much of vLLM's engine client as is asked here."""

    extension: str
    told: list[dict[str, Any]]
    asked: list[str] = field(default_factory=list)

    @property
    def vllm_config(self) -> Any:
        return Made(parallel_config=Made(worker_extension_cls=self.extension))

    async def collective_rpc(self, name: str, args: tuple[str, ...]) -> list[dict[str, Any]]:
        self.asked.append(args[0])
        return self.told


async def test_without_the_flag_no_worker_is_asked() -> None:
    client = Client("", [{"n_layers": 3, "n_heads": 4}])
    found = await prepared(client)
    assert isinstance(found, Refused)
    assert "--enforce-eager --worker-extension-cls spex_proxy_vllm.ablation.Ablation" in found.why
    assert client.asked == []


async def test_with_it_workers_say_what_they_have_or_why_not() -> None:
    client = Client(EXTENSION, [{"n_layers": 3, "n_heads": 4}])
    found = await prepared(client)
    assert found == Ready(3, 4, client.asked[0])
    assert await prepared(Client(EXTENSION, [{"refused": "no"}])) == Refused("no")


def config(**changes: Any) -> Any:
    sizes = {f"{way}_parallel_size": 1 for way in ("tensor", "pipeline", "data")} | changes
    text = Made(num_attention_heads=4, num_hidden_layers=3)
    model = Made(enforce_eager=changes.get("eager", True), hf_text_config=text)
    return Made(parallel_config=Made(**sizes), model_config=model, use_v2_model_runner=changes.get("v2", False))


class Projection(torch.nn.Module):
    """Says what it is given."""

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.input_size = size

    def forward(self, joined: Any) -> Any:
        return joined


def model(layers: int = 3, name: str = "o_proj", size: int = 8) -> Any:
    made = torch.nn.Module()
    made.layers = torch.nn.ModuleList(
        torch.nn.ModuleDict({"self_attn": torch.nn.ModuleDict({name: Projection(size)})}) for _ in range(layers)
    )
    return made


def worker(given: Any, made: Any, batch: list[tuple[str, int, Any]]) -> Any:
    """A worker whose next step holds these requests: id, tokens, extra arguments."""
    bounds = np.cumsum([0, *(tokens for _, tokens, _ in batch)])
    runner = Made(
        get_model=lambda: made,
        query_start_loc=Made(np=bounds),
        input_batch=Made(req_ids=[name for name, _, _ in batch]),
        requests={name: Made(sampling_params=Made(extra_args=extra)) for name, _, extra in batch},
    )
    worker = ablation.Ablation()
    worker.vllm_config, worker.model_runner = given, runner
    return worker


@pytest.mark.parametrize(
    ("given", "made", "words"),
    [
        (config(eager=False), model(), "needs eager mode: start vLLM with --enforce-eager"),
        (config(v2=True), model(), "VLLM_USE_V2_MODEL_RUNNER=0"),
        (config(tensor_parallel_size=2), model(), "one device"),
        (config(), model(layers=2), "no one stack"),
        (config(), model(name="fused"), "no one stack"),
        (config(), torch.nn.ModuleDict({"language": model(), "vision": model()}), "no one stack"),
        (config(), model(size=6), "4 heads don't divide"),
    ],
)
def test_a_server_that_cannot_ablate_says_why_and_hooks_nothing(given: Any, made: Any, words: str) -> None:
    assert words in worker(given, made, []).spex_ablation("s3cret")["refused"]
    assert not any(module._forward_pre_hooks for module in made.modules())


def extra(asked: AskedHeads, number: int, **changes: Any) -> dict[str, Any]:
    told = asked.alone(number).extra()
    return {KEY: told[KEY] | changes}


def test_only_the_rows_of_requests_that_know_the_secret_are_touched() -> None:
    asked, made = read_heads(body(), READY), model()
    made.vision = model(layers=2)
    step = [
        ("production", 2, None),
        ("one", 1, extra(asked, 1)),
        ("liar", 2, extra(asked, 1, secret="guess")),
        ("two", 3, extra(asked, 2, rescale=False)),
        ("stranger", 1, {KEY: "heads"}),
    ]
    works = worker(config(), made, step)
    assert works.spex_ablation("s3cret") == {"n_layers": 3, "n_heads": 4}
    assert works.spex_ablation("another server's")["n_heads"] == 4  # no second hook
    given = torch.arange(1.0, 81.0).reshape(10, 8)  # a row past the batch: padding
    before = given.clone()
    said = [made.layers[at]["self_attn"]["o_proj"](given).reshape(10, 4, 2) for at in range(3)]
    wanted = [before.reshape(10, 4, 2).clone() for _ in range(3)]
    wanted[1][2] *= torch.tensor([4 / 3, 0, 4 / 3, 4 / 3])[:, None]
    wanted[1][5:8] *= torch.tensor([0.0, 1, 1, 1])[:, None]
    wanted[2][2] *= 0  # no head of this layer is kept
    wanted[2][5:8] *= torch.tensor([0.0, 0, 0, 1])[:, None]
    for one, other in zip(said, wanted, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(given, before)
