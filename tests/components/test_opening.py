"""Configurations: what makes a game, and what is refused in words that help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from spex_proxy.plug.kinds import GameMaker, OpenGame
from spex_proxy.plug.load import Plugins
from spex_proxy_components.anatomy import Ending, ending_of
from spex_proxy_components.maker import Components
from spex_proxy_components.settings import Wanted
from tests.components import tiny

TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }} {% endfor %}{% if add_generation_prompt %}is{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as transformers saves it."""
    path = tmp_path_factory.mktemp("models") / "tiny-model"
    tiny.llama().save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


def test_it_is_a_game_maker_that_loads_without_torch() -> None:
    made = Plugins().get("game", "components").instance
    assert isinstance(made, GameMaker)
    code = "import sys, spex_proxy_components.maker; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_and_a_file_of_questions_make_a_game(folder: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"name": f"number {at}", **question}) for at, question in enumerate(tiny.QUESTIONS)]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines) + "\n\n")
    config = {"model": str(folder), "questions": str(tmp_path / "questions.jsonl"), "layers": [1, 3], "batch": 7}
    game = Components().open({**config, "components": "both"}, None)
    assert isinstance(game, OpenGame)
    rules = game.rules
    assert (rules.kind, rules.subject, rules.value, rules.unit, rules.batch) == (
        "components", "tiny-model", "mean", "nats", 7,
    )  # fmt: skip
    assert [(player.text, player.group) for player in rules.players[3:6]] == [
        ("layer 1, head 3", "layer 1"), ("layer 1, MLP", "layer 1"), ("layer 2, head 0", "layer 2"),
    ]  # fmt: skip
    assert len(rules.players) == 10
    assert rules.items == tuple(f"number {at}" for at in range(5))
    assert "2 of 3 layers, for 5 questions" in rules.cost
    assert any("grouped-query" in note and "2 of them" in note for note in rules.notes)
    measured = game.measure(np.ones((1, 10), dtype=bool))
    np.testing.assert_allclose(measured.readings[0], tiny.own_logprobs(tiny.llama(), tiny.QUESTIONS), atol=1e-4)
    game.close()


def test_a_chat_goes_through_the_template() -> None:
    model, words = tiny.llama(), tiny.tokenizer()
    words.chat_template = TEMPLATE
    from spex_proxy_components.opening import game_of  # noqa: PLC0415

    asked = [{"messages": [{"role": "user", "content": "a b c"}], "answer": "red"}]
    game = game_of(model, words, tiny.wanted(questions=asked))
    found = game.measure(np.ones((1, 12), dtype=bool)).readings[0]
    np.testing.assert_allclose(found, tiny.own_logprobs(model, [{"prompt": "a b c is", "answer": "red"}]), atol=1e-4)
    assert game.rules.items == ("a b c",)


QUESTION = {"prompt": "a b", "answer": "c"}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model": None}, "'model' is missing"),
        ({"layer": [0, 1]}, "there is no 'layer'; there is model"),
        ({"layers": [0, 9]}, "the model has layers 0 to 2"),
        ({"layers": [2, 1]}, r"\[0, 6\] for the first six"),
        ({"layers": "some"}, "must be `all` or"),
        ({"components": "neurons"}, "there is heads, mlp, both"),
        ({"ablation": "one"}, "there is zero, mean, resample"),
        ({"value": "perplexity"}, "there is logprob, logit_difference, accuracy"),
        ({"dtype": "int8"}, "there is float32, bfloat16, float16"),
        ({"batch": 0}, "`batch` is 0"),
        ({"device": "cuda", "device_map": "auto"}, "not both"),
        ({"device": "nothing"}, "can't be put on the device 'nothing'"),
        ({"ablation": "mean", "rescale": True}, "`rescale` goes with the ablation `zero`"),
        ({"reference": ["a"]}, "this one is `zero`"),
        ({"ablation": "mean", "reference": "nowhere.txt"}, "nowhere.txt can't be read"),
        ({"questions": "nowhere.jsonl"}, "nowhere.jsonl can't be read"),
        ({"questions": []}, "'questions' is missing"),
        ({"questions": ["a"]}, "a question is an object"),
        ({"questions": [{"prompt": "a"}]}, "needs an `answer`"),
        ({"questions": [{"answer": "a"}]}, "either `prompt` or `messages`"),
        ({"questions": [{**QUESTION, "reply": "d"}]}, "has no 'reply'"),
        ({"questions": [QUESTION], "value": "logit_difference"}, "question 1 has no `contrast`"),
        ({"questions": [{**QUESTION, "contrast": "c"}]}, "coincide"),
        ({"questions": [{**QUESTION, "contrast": "c d"}]}, "begins with the other"),
        ({"questions": [{"prompt": "a " * 80, "answer": "c"}]}, "has 80 tokens; .* over 64"),
        ({"questions": [QUESTION], "ablation": "resample"}, "of question 1: give `reference`, or two questions"),
        ({"questions": [QUESTION, {**QUESTION, "answer": "d"}], "ablation": "resample"}, "of question 1: give `ref"),
        (
            {"questions": [{"prompt": "c", "answer": "d"}, QUESTION], "ablation": "resample", "reference": ["a b"]},
            "every text begins with the prompt of question 2",
        ),
        ({"questions": [{"messages": [{"role": "user", "content": "a"}], "answer": "c"}]}, "has no chat template"),
        ({"questions": [{"messages": [{"role": "user"}], "answer": "c"}]}, "`role` and `content`"),
    ],
)
def test_bad_configurations_are_refused(folder: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Components().open({"model": str(folder), "questions": tiny.QUESTIONS, **config}, None)


def test_a_line_of_a_file_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "a"}\n')
    with pytest.raises(ValueError, match=r"q\.jsonl, line 2: a question needs an `answer`"):
        Components().open({"model": str(folder), "questions": str(tmp_path / "q.jsonl")}, None)


def test_a_model_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't be loaded"):
        Components().open({"model": str(tmp_path), "questions": tiny.QUESTIONS}, None)


def test_fused_attention_is_refused() -> None:
    model = tiny.llama()
    for layer in model.model.layers:
        attention = layer.self_attn
        attention.everything = attention.o_proj
        del attention.o_proj
    with pytest.raises(ValueError, match=r"layer 0: .* o_proj.* only q_proj, k_proj, v_proj.*, everything"):
        tiny.playing(model).__enter__()


def test_heads_that_do_not_divide_are_refused() -> None:
    model = tiny.llama()
    model.config.num_attention_heads = 5
    with pytest.raises(ValueError, match="32 numbers come from the heads, and 5 heads"):
        tiny.playing(model).__enter__()


def test_a_model_with_a_way_of_its_own_is_refused() -> None:
    model = tiny.llama()
    model.lm_head.register_forward_hook(lambda _, __, out: out)  # harmless
    with tiny.playing(model):
        pass
    head = model.forward
    model.forward = lambda *given, **named: doubled(head(*given, **named))
    with pytest.raises(ValueError, match="our pass and the model's own differ"):
        tiny.playing(model).__enter__()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_refused_though_its_answers_are_sure(dtype: str) -> None:
    """Logits times 2: the answer's log-probability stays near 0, that of the others does not."""
    model, words = tiny.llama(), tiny.tokenizer()
    model.lm_head.weight.data *= 30
    prompt = words.encode("a b d")
    likeliest = words.decode(int(model(torch.tensor([prompt])).logits[0, -1].argmax()))
    asked = [{"prompt": "a b d", "answer": likeliest}]
    assert tiny.own_logprobs(model, asked)[0] > -1e-6
    model.to(getattr(torch, dtype))
    with tiny.playing(model, questions=asked, dtype=dtype) as game:
        assert any("every token's" in note and "on 1 of 1" in note for note in game.rules.notes)
    own = model.forward
    model.forward = lambda *given, **named: twice(own(*given, **named))
    with pytest.raises(ValueError, match="our pass and the model's own differ"):
        tiny.playing(model, questions=asked, dtype=dtype).__enter__()


def test_what_follows_the_head_is_read_in_a_text_configuration_and_words_are_none() -> None:
    assert ending_of(tiny.gemma2(2.5).config.get_text_config()) == Ending(1.0, 2.5)
    assert ending_of(tiny.gemma2(None).config) == Ending()
    assert ending_of(transformers.MptConfig(logit_scale="inv_sqrt_d_model")) == Ending()
    of_images = transformers.Gemma3Config(text_config={"final_logit_softcapping": 7.0})
    assert ending_of(of_images.get_text_config()) == Ending(1.0, 7.0)


def twice(said: Any) -> Any:
    said.logits = 2 * said.logits
    return said


def doubled(said: Any) -> Any:
    """What a model does that caps or scales its logits at the end."""
    said.logits = torch.tanh(said.logits / 3) * 3
    return said


def test_more_tokens_go_through_a_gpu_at_once_unless_the_file_says_how_many() -> None:
    asked: dict[str, Any] = {"model": "m", "questions": [{"prompt": "a", "answer": "b"}]}
    given: list[dict[str, Any]] = [{}, {"device": "cuda:1"}, {"device_map": "auto"}, {"device": "cuda", "tokens": 7}]
    assert [Wanted.of(asked | each).tokens for each in given] == [512, 2048, 2048, 7]
