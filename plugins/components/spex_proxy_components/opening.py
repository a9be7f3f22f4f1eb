"""From a configuration to a game: the model is loaded, taken apart, and checked against itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from spex_proxy.facts.seals import canonical_json, seal
from spex_proxy.plug.kinds import Player, Rules
from spex_proxy_components.ablation import Hooks, Layout
from spex_proxy_components.anatomy import Anatomy, take_apart
from spex_proxy_components.game import OpenComponents
from spex_proxy_components.packing import pack
from spex_proxy_components.passes import Prepared, aligned, average, listened, prepare, run
from spex_proxy_components.questions import Asked, Tokenizer, asked_of
from spex_proxy_components.settings import Wanted

CODE = 1
"""Raised when a change to this package changes values. In every digest."""
UNITS = {"logprob": "nats", "logit_difference": "logits", "accuracy": "share correct"}
TOLERANCE = {"float32": 0.01, "bfloat16": 0.3, "float16": 0.1}
"""Nats by which log-probabilities of our pass and of the model's own may differ."""
MOST_COMPARED = 8
"""Questions, the longest of all."""


def opened(wanted: Wanted) -> OpenComponents:
    """Load, take apart, prepare, compare. Raises ValueError for what makes no game."""
    model, tokenizer = loaded(wanted)
    return game_of(model, tokenizer, wanted)


def loaded(wanted: Wanted) -> tuple[Any, Tokenizer]:
    """Model and tokenizer. Raises ValueError if there are none, or if the device is none."""
    where: dict[str, Any] = {"device_map": wanted.device_map} if wanted.device_map is not None else {}
    quiet: Any = transformers.utils.logging
    quiet.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(wanted.model)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            wanted.model, dtype=getattr(torch, wanted.dtype), **where
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"the model {wanted.model!r} can't be loaded: {error}") from error
    if not where:
        try:
            model = model.to(wanted.device)
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            raise ValueError(f"the model can't be put on the device {wanted.device!r}: {error}") from error
    return model.eval(), tokenizer


def game_of(model: Any, tokenizer: Tokenizer, wanted: Wanted) -> OpenComponents:
    """The game of a loaded model."""
    anatomy = take_apart(model)
    first, stop = wanted.layers or (0, len(anatomy.layers))
    wants_heads, wants_mlp = wanted.components != "mlp", wanted.components != "heads"
    anatomy.check(first, stop, wants_mlp)
    layout = Layout(first, stop, anatomy.n_heads if wants_heads else 0, wants_mlp)
    asked = [asked_of(question, tokenizer, number) for number, question in enumerate(wanted.questions, 1)]
    check_lengths(model, asked)
    references = [tuple(tokenizer.encode(text)) for text in wanted.reference] or [each.prompt for each in asked]
    prepared = prepared_of(anatomy, layout, asked, references, wanted)
    hooks = Hooks(anatomy, layout)
    notes = (compared(model, anatomy, layout, hooks, prepared, asked, wanted), *told(anatomy, wanted, references))
    rules = Rules(
        kind="components",
        subject=Path(wanted.model).name,
        players=players(layout),
        items=tuple(question.shown for question in wanted.questions),
        value="mean",
        unit=UNITS[wanted.value],
        digest=digest(model, layout, asked, references, wanted),
        batch=wanted.batch,
        cost=cost(anatomy, layout, prepared, len(asked)),
        notes=notes,
    )
    return OpenComponents(rules, anatomy, layout, hooks, prepared, wanted)


def check_lengths(model: Any, asked: Sequence[Asked]) -> None:
    """Raises ValueError for questions longer than the model reads, or sees at once."""
    config = model.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("max_position_embeddings", "sliding_window")]
    most = min((int(each) for each in windows if each), default=None)
    for number, each in enumerate(asked, 1):
        if most is not None and each.length > most:
            raise ValueError(f"question {number} has {each.length} tokens; this model's attention reaches over {most}")


def prepared_of(
    anatomy: Anatomy, layout: Layout, asked: Sequence[Asked], references: Sequence[Sequence[int]], wanted: Wanted
) -> list[Prepared]:
    """All packs, each with what stands in the place of ablated parts."""
    dtype, everyone = getattr(torch, wanted.dtype), range(len(asked))
    if wanted.ablation == "zero":
        return [prepare(anatomy, layout, each, None, dtype) for each in pack(asked, everyone)]
    fills = listened(anatomy, layout, references)
    if wanted.ablation == "mean":
        fill = average(fills)
        return [prepare(anatomy, layout, each, fill, dtype) for each in pack(asked, everyone)]
    drawn = draws(len(asked), len(references), wanted.seed, is_own=not wanted.reference)
    packs: list[Prepared] = []
    for reference in sorted(set(drawn)):  # questions that share tokens in a pack share the text that replaces them
        mine = pack(asked, [number for number in everyone if drawn[number] == reference])
        packs += [prepare(anatomy, layout, each, aligned(fills[reference], each), dtype) for each in mine]
    return packs


def draws(questions: int, references: int, seed: int, is_own: bool) -> list[int]:
    """Which reference text replaces which question's activations. Raises ValueError if there is none to draw.

    Where the references are the questions themselves (`is_own`), none is replaced by itself.
    """
    if is_own and questions < 2:
        raise ValueError("`resample` replaces by what another text says: give `reference`, or two questions")
    words = np.random.PCG64(np.random.SeedSequence([seed, 8])).random_raw(questions)
    if not is_own:
        return [int(word % np.uint64(references)) for word in words]
    return [(number + 1 + int(word % np.uint64(questions - 1))) % questions for number, word in enumerate(words)]


def compared(
    model: Any, anatomy: Anatomy, layout: Layout, hooks: Hooks, prepared: Sequence[Prepared],
    asked: Sequence[Asked], wanted: Wanted,
) -> str:  # fmt: skip
    """Nothing ablated, our way and the model's own must say the same. Returns a note, or raises ValueError."""
    full = np.ones((1, len(layout)), dtype=np.bool_)
    ours: dict[int, float] = {}
    for each in prepared:
        found = run(anatomy, layout, hooks, each, full, "logprob", wanted.rescale_heads)[0]
        ours.update(zip(each.pack.questions, found.tolist(), strict=True))
    longest = sorted(range(len(asked)), key=lambda number: -asked[number].length)[:MOST_COMPARED]
    worst = max(abs(ours[number] - plain_logprob(model, asked[number])) for number in longest)
    if not worst <= TOLERANCE[wanted.dtype]:
        raise ValueError(
            f"{type(model).__name__}: our pass and the model's own differ by {worst:.3g} nats with nothing ablated; "
            "this model does something between its layers that is not understood here, so its parts can't be ablated"
        )
    return (
        f"With nothing ablated, the batched pass and the model's own agreed within {worst:.1g} nats "
        f"on {len(longest)} of {len(asked)} questions."
    )


def plain_logprob(model: Any, asked: Asked) -> float:
    """Log-probability of the answer by the model's own forward pass: one row, no hook, no pack."""
    ids = torch.as_tensor([[*asked.prompt, *asked.answer[:-1]]], device=next(model.parameters()).device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(asked.prompt) - 1 :].float()
    wanted = torch.as_tensor(asked.answer, device=logits.device)[:, None]
    return float(logits.log_softmax(dim=-1).gather(1, wanted).sum())


def players(layout: Layout) -> tuple[Player, ...]:
    made = []
    for layer in range(layout.first, layout.stop):
        names = [f"head {head}" for head in range(layout.n_heads)] + ["MLP"] * layout.has_mlp
        made += [Player(f"layer {layer}, {name}", f"layer {layer}") for name in names]
    return tuple(made)


def told(anatomy: Anatomy, wanted: Wanted, references: Sequence[Sequence[int]]) -> list[str]:
    """What a reader of the results must know."""
    ways = {
        "zero": "An ablated part says nothing",
        "mean": f"An ablated part says what it says on average over {len(references)} texts",
        "resample": "An ablated part says what it says at the same position of another text, drawn once a question",
    }
    rescaled = "; the kept heads of a layer are scaled up by heads over kept heads" if wanted.rescale_heads else ""
    notes = [f"{ways[wanted.ablation]}{rescaled}."]
    shared = anatomy.shared_heads
    if wanted.components != "mlp" and shared > 1:
        notes.append(
            f"The players are query heads; {shared} of them share one set of keys and values "
            "(grouped-query attention), which stay as they are when one is ablated."
        )
    return notes


def cost(anatomy: Anatomy, layout: Layout, prepared: Sequence[Prepared], questions: int) -> str:
    tokens = sum(len(each.pack) for each in prepared)
    layers = len(anatomy.layers) - layout.first
    return f"{tokens} tokens through {layers} of {len(anatomy.layers)} layers, for {questions} questions"


def digest(
    model: Any, layout: Layout, asked: Sequence[Asked], references: Sequence[Sequence[int]], wanted: Wanted
) -> str:
    """Of everything that fixes the values: weights by their bytes, tokens, ablation, precision, this code."""
    chosen: Mapping[str, Any] = {
        "code": CODE, "layers": [layout.first, layout.stop], "components": wanted.components, "dtype": wanted.dtype,
        "ablation": wanted.ablation, "rescale": wanted.rescale_heads, "seed": wanted.seed, "value": wanted.value,
        "questions": [[each.prompt, each.answer, each.contrast] for each in asked],
        "references": [list(each) for each in references] if wanted.ablation != "zero" else [],
        "drawn_from": "reference" if wanted.reference else "questions",
        "model": architecture(model),
    }  # fmt: skip
    return seal(canonical_json(chosen), weights_digest(model))


def architecture(model: Any) -> dict[str, Any]:
    """What the configuration says of the model itself, without where it came from and which version wrote it."""
    said: dict[str, Any] = model.config.to_dict()
    left_out = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
    return {name: repr(value) for name, value in said.items() if name not in left_out}


def weights_digest(model: Any) -> bytes:
    """SHA-256 over all parameters and buffers by name, shape, type and bytes; wherever they came from."""
    found = hashlib.sha256()
    named = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        here = tensor.detach().cpu().contiguous()
        found.update(f"{name} {here.dtype} {tuple(here.shape)}\n".encode())
        found.update(here.reshape(-1).view(torch.uint8).numpy().tobytes() if here.numel() else b"")
    return found.digest()
