"""From a configuration to a game: the model is loaded, taken apart, and checked against itself."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from spex_proxy.facts.seals import canonical_json, seal
from spex_proxy.plug.kinds import Player, Rules
from spex_proxy_components.ablation import Hooks, Layout
from spex_proxy_components.anatomy import Anatomy, take_apart
from spex_proxy_components.game import OpenComponents
from spex_proxy_components.packing import ANSWER, CONTRAST, Pack, pack
from spex_proxy_components.passes import Prepared, aligned, average, listened, logits_at, passed, prepare
from spex_proxy_components.questions import Asked, Tokenizer, asked_of
from spex_proxy_components.settings import Precision, Wanted

CODE = 2
"""Raised when a change to this package changes values. In every digest."""
UNITS = {"logprob": "nats", "logit_difference": "logits", "accuracy": "share correct"}
TOLERANCE = {"float32": 0.01, "bfloat16": 0.3, "float16": 0.1}
"""Nats by which log-probabilities of our pass and of the model's own may differ."""
STEPS = 4.0
"""And by so many roundings of the largest of them: SmolLM2-135M in bfloat16 differs by 0.39, and may by 1.3."""
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
    drawn = draws([each.prompt for each in asked], references, wanted.seed)
    packs: list[Prepared] = []
    for reference in sorted(set(drawn)):  # questions that share tokens in a pack share the text that replaces them
        mine = pack(asked, [number for number in everyone if drawn[number] == reference])
        packs += [prepare(anatomy, layout, each, aligned(fills[reference], each), dtype) for each in mine]
    return packs


def draws(prompts: Sequence[Sequence[int]], references: Sequence[Sequence[int]], seed: int) -> list[int]:
    """Which reference text replaces which question's activations; the references may be the prompts themselves.

    None that begins with the question's own prompt: what the model says there is what is to be replaced. Raises
    ValueError if there is no other.
    """
    words = np.random.PCG64(np.random.SeedSequence([seed, 8])).random_raw(len(prompts))
    found = []
    for number, (prompt, word) in enumerate(zip(prompts, words, strict=True), 1):
        others = [at for at, text in enumerate(references) if tuple(text[: len(prompt)]) != tuple(prompt)]
        if not others:
            raise ValueError(
                "`resample` replaces by what another text says, and every text begins with the prompt of question "
                f"{number}: give `reference`, or two questions that differ"
            )
        found.append(others[int(word) % len(others)])
    return found


def compared(
    model: Any, anatomy: Anatomy, layout: Layout, hooks: Hooks, prepared: Sequence[Prepared],
    asked: Sequence[Asked], wanted: Wanted,
) -> str:  # fmt: skip
    """Nothing ablated, our way and the model's own must say the same, or ValueError is raised. Returns a note.

    The same of every token wherever one is read: a sure answer has a log-probability near 0 either way.
    """
    full, worst = np.ones((1, len(layout)), dtype=np.bool_), 0.0
    longest = sorted(range(len(asked)), key=lambda number: -asked[number].length)[:MOST_COMPARED]
    with torch.inference_mode():
        for each in prepared:
            if not set(longest) & set(each.pack.questions):
                continue
            hidden = passed(anatomy, layout, hooks, each, full, wanted.rescale_heads)
            for places, ids in sequences(each.pack, asked, longest):
                ours = logits_at(anatomy, hidden, places)[0].log_softmax(dim=-1).cpu()
                theirs = own_predictions(model, ids, len(places)).cpu()
                apart = largest_difference(ours, theirs)
                if not apart <= allowed(theirs, wanted.dtype):
                    raise ValueError(
                        f"{type(model).__name__}: our pass and the model's own differ by {apart:.3g} nats with nothing "
                        "ablated; this model does something between its layers or to its logits that is not "
                        "understood here, so its parts can't be ablated"
                    )
                worst = max(worst, apart)
    return (
        f"With nothing ablated, the batched pass and the model's own agreed within {worst:.1g} nats on every token's "
        f"log-probability, on {len(longest)} of {len(asked)} questions."
    )


def sequences(
    pack: Pack, asked: Sequence[Asked], among: Sequence[int]
) -> Iterator[tuple[NDArray[np.int64], Sequence[int]]]:
    """Of the pack's questions that are `among` these: where each answer is read, and the tokens that lead there."""
    for owner, number in enumerate(pack.questions):
        if number in among:
            for side, answer in ((ANSWER, asked[number].answer), (CONTRAST, asked[number].contrast)):
                if answer:
                    places = pack.places[(pack.owners == owner) & (pack.sides == side)]
                    yield places, [*asked[number].prompt, *answer[:-1]]


def own_predictions(model: Any, ids: Sequence[int], last: int) -> torch.Tensor:
    """Log-probabilities (last, vocabulary) behind the last tokens, by the model's own pass: one row, no pack."""
    tokens = torch.as_tensor([list(ids)], device=next(model.parameters()).device)
    logits: torch.Tensor = model(input_ids=tokens, use_cache=False).logits[0, -last:]
    return logits.float().log_softmax(dim=-1)


def largest_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Infinite for other vocabularies; a token that both rule out (-inf) is no difference."""
    if ours.shape != theirs.shape:
        return math.inf
    return float(torch.where(ours == theirs, 0.0, (ours - theirs).abs()).max())


def allowed(said: torch.Tensor, dtype: Precision) -> float:
    """Nats by which the two ways may differ: they sum in another order, in digits that large numbers have fewer of."""
    largest, rounding = float(said[said.isfinite()].abs().max()), float(torch.finfo(getattr(torch, dtype)).eps)
    return TOLERANCE[dtype] + STEPS * rounding * largest


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
