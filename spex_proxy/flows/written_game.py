"""A game that is no production request, written down as an exchange: its players are the messages, what is measured
the answer.

So whatever works on exchanges works on it too: jobs, evidence, pages, search, verification, erasure. One token is one
player (0 is nobody's, and stands before them all); one output token is one measured item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import accumulate
from typing import Any

import numpy as np

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.evidence import Masks, Probe
from spex_proxy.facts.exchange import OBSTACLES, Exchange, Message, MessagePlace, TokenizedExchange
from spex_proxy.facts.recipe import Recipe
from spex_proxy.plug.kinds import Rules

SEGMENTER, MASKER = "message", "delete"
"""What makes the players of such an exchange, and a coalition of them."""
_BEFORE, _BETWEEN = "players:\n", "\n"


def exchange_of(
    maker: str, config: Mapping[str, Any], rules: Rules, *, exchange_id: str, project: str, now: datetime
) -> Exchange:
    """The game of plugin `maker` with `config`, ready to be stored. All that could be content is in its content."""
    messages = tuple(Message("player", player.text, player.group or None) for player in rules.players)
    return Exchange(
        id=exchange_id,
        project=project,
        kind="game",
        model=rules.subject,
        messages=messages,
        output_text=_BETWEEN.join(rules.items),
        finish_reason=None,
        upstream_id=None,
        streamed=False,
        received_at=now,
        first_byte_s=0.0,
        duration_s=0.0,
        prompt_tokens=None,
        output_tokens=None,
        capture_probability=1.0,
        request={"game": maker, "config": dict(config), "rules": told(rules)},
    )


def told(rules: Rules) -> dict[str, Any]:
    """What is stored of the rules beside players and items."""
    return {"kind": rules.kind, "value": rules.value, "unit": rules.unit, "digest": rules.digest,
            "cost": rules.cost, "notes": list(rules.notes)}  # fmt: skip


def tokens_of(exchange: Exchange) -> TokenizedExchange:
    """Players and items as tokens."""
    texts = [message.text for message in exchange.messages]
    starts = _starts(texts, len(_BEFORE))
    spans = [(start, start + len(text)) for start, text in zip(starts, texts, strict=True)]
    items = exchange.output_text.split(_BETWEEN)
    begun = _starts(items, 0)
    return TokenizedExchange(
        prompt_ids=tuple(range(len(texts) + 1)),
        prompt_text=_BEFORE + _BETWEEN.join(texts),
        offsets=((0, len(_BEFORE)), *spans),
        places=tuple(MessagePlace(*span) for span in spans),
        output_ids=tuple(range(len(items))),
        ids_source="reply",
        output_text=exchange.output_text,
        output_offsets=tuple((start, start + len(item)) for start, item in zip(begun, items, strict=True)),
    )


def recipe_of(exchange: Exchange, recipe: Recipe) -> Recipe:
    """The recipe with what a game fixes by itself; that of a production request as it is."""
    if exchange.kind != "game":
        return recipe
    value, items = exchange.request["rules"]["value"], exchange.output_text.count(_BETWEEN) + 1
    return replace(recipe, segmenter=SEGMENTER, masker=MASKER, value=value, max_scored_tokens=items)


def coalitions(probes: Sequence[Probe], n_players: int) -> Masks:
    """The masks (m, n) that probes ask."""
    masks = np.zeros((len(probes), n_players + 1), dtype=np.bool_)
    for row, probe in zip(masks, probes, strict=True):
        row[[token for token in probe.prompt_ids if token <= n_players]] = True
    return masks[:, 1:]


def differences(exchange: Exchange, rules: Rules) -> list[str]:
    """What of the game is no longer as it was when the exchange was stored, by name."""
    stored = exchange.request["rules"]
    same = {
        "its players": [(m.text, m.name or "") for m in exchange.messages]
        == [(p.text, p.group) for p in rules.players],
        "what it measures": exchange.output_text == _BETWEEN.join(rules.items) and stored["value"] == rules.value,
        "what fixes its values (model, data, settings or code)": stored["digest"] == rules.digest,
    }
    return [what for what, is_same in same.items() if not is_same]


def question_of(exchange: Exchange) -> dict[str, Any]:
    """A stored answer as a question to a model whose parts are ablated: the same prompt, the same answer.

    Raises CannotExplain for a request whose prompt is more than texts that the model's own template puts together.
    """
    named = {"name": f"exchange {exchange.id}", "answer": exchange.output_text}
    if exchange.obstacle is not None:
        raise CannotExplain(OBSTACLES.get(exchange.obstacle, exchange.obstacle))
    if not exchange.output_text:
        raise CannotExplain("this exchange has no answer in text")
    if exchange.kind == "completion":
        return {"prompt": exchange.messages[0].text, **named}
    if exchange.kind != "chat" or any(m.kind != "text" or m.part is not None for m in exchange.messages):
        raise CannotExplain(
            f"this {exchange.kind} request holds more than plain messages (tools, parts, another protocol): write its "
            "prompt into the game's file, as the model saw it, as `prompt`"
        )
    return {"messages": [{"role": m.role, "content": m.text} for m in exchange.messages], **named}


def _starts(texts: Sequence[str], first: int) -> list[int]:
    return list(accumulate((len(text) + len(_BETWEEN) for text in texts), initial=first))[:-1]
