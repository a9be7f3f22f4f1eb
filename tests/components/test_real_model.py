"""The example of the docs on the real SmolLM2-135M, to an explanation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml

from spex_proxy.engine import designs
from spex_proxy.engine.conclude import conclude
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe
from spex_proxy_components.maker import Components

ROOT = Path(__file__).parents[2]
MODEL = ROOT / ".models" / "smollm2-135m-instruct"


@pytest.mark.slow
@pytest.mark.skipif(not MODEL.exists(), reason="the model is not here; `make vllm` fetches it")
def test_heads_that_repeat_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load((ROOT / "docs" / "examples" / "heads.yaml").read_text())
    game = Components().open(config, None)
    assert len(game.rules.players) == 54
    assert (game.rules.players[0].text, game.rules.players[53].text) == ("layer 24, head 0", "layer 29, head 8")
    assert any("3 of them share" in note for note in game.rules.notes)

    plan = designs.plan(54, Recipe(budget=192, replicates=1))
    found = [game.measure(plan.masks[start : start + 64]) for start in range(0, len(plan), 64)]
    readings = np.concatenate([each.readings for each in found])
    game.close()
    assert np.isfinite(readings).all()
    np.testing.assert_allclose(readings[plan.masks.all(axis=1)][0], plain(config), atol=1e-3)

    values = readings.mean(axis=1, dtype=np.float64)
    fit = conclude(Recipe(budget=192, replicates=1), rows_of(Evidence(plan.masks, values, plan.replicates)))
    assert fit.fidelity.value_full > 2  # it does repeat the list
    assert fit.fidelity.r2 > 0.3


def plain(config: dict[str, str]) -> list[float]:
    """Logit differences by transformers alone; every answer is one token."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    found = []
    for line in Path(config["questions"]).read_text().splitlines():
        question = yaml.safe_load(line)
        answer, contrast = (tokenizer.encode(question[name])[0] for name in ("answer", "contrast"))
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.encode(question["prompt"])])).logits[0, -1]
        found.append(float(logits[answer] - logits[contrast]))
    return found
