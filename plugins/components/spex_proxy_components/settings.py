"""What a person's file may say, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from spex_proxy_components.questions import Question, read_questions

Parts = Literal["heads", "mlp", "both"]
Way = Literal["zero", "mean", "resample"]
Reading = Literal["logprob", "logit_difference", "accuracy"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The configuration, with its files read."""

    model: str
    """Folder, or name on the Hugging Face hub."""
    questions: tuple[Question, ...]
    dtype: Precision = "float32"
    device: str = "cpu"
    device_map: str | Mapping[str, Any] | None = None
    """As transformers takes it, in place of `device`: how a model is spread over several GPUs."""
    layers: tuple[int, int] | None = None
    """First layer, and the one after the last; None for all."""
    components: Parts = "heads"
    ablation: Way = "zero"
    rescale: bool = True
    """With `zero`: what a layer's heads still say is multiplied by heads over kept heads."""
    reference: tuple[str, ...] = ()
    """Texts for `mean` and `resample`; without any, the questions' own prompts."""
    value: Reading = "logprob"
    seed: int = 0
    """Of the draw of `resample`."""
    batch: int = 64
    """Most masks in one call."""
    tokens: int = 512
    """About how many tokens, of all rows together, go through the model at once."""

    @property
    def rescale_heads(self) -> bool:
        """Scaling up makes no sense beside a fill, which keeps a layer's sum as large as it was."""
        return self.rescale and self.ablation == "zero"

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Wanted:
        """Raises ValueError, in words for whoever wrote the file."""
        known = [field.name for field in fields(cls)]
        for name in config:
            if name not in known:
                raise ValueError(f"components: there is no {name!r}; there is {', '.join(known)}")
        for name in ("model", "questions"):
            if not config.get(name):
                raise ValueError(f"components: {name!r} is missing")
        wanted = cls(
            model=text("model", config["model"]),
            questions=read_questions(config["questions"]),
            dtype=choice("dtype", config.get("dtype", "float32"), Precision),
            device=text("device", config.get("device", "cpu")),
            device_map=device_map(config.get("device_map")),
            layers=layer_range(config.get("layers", "all")),
            components=choice("components", config.get("components", "heads"), Parts),
            ablation=choice("ablation", config.get("ablation", "zero"), Way),
            rescale=switch("rescale", config.get("rescale", True)),
            reference=texts("reference", config.get("reference", ())),
            value=choice("value", config.get("value", "logprob"), Reading),
            seed=count("seed", config.get("seed", 0), 0),
            batch=count("batch", config.get("batch", 64), 1),
            tokens=count("tokens", config.get("tokens", tokens_at_once(config)), 1),
        )
        return wanted.checked(config)

    def checked(self, config: Mapping[str, Any]) -> Wanted:
        """What contradicts itself. Raises ValueError."""
        if self.value == "logit_difference":
            for number, question in enumerate(self.questions, 1):
                if not question.contrast:
                    raise ValueError(
                        f"question {number} has no `contrast`, which the value `logit_difference` compares with"
                    )
        if self.reference and self.ablation == "zero":
            raise ValueError("`reference` is read by the ablations `mean` and `resample`; this one is `zero`")
        if "rescale" in config and self.ablation != "zero":
            raise ValueError(f"`rescale` goes with the ablation `zero`; this one is `{self.ablation}`")
        if self.device_map is not None and "device" in config:
            raise ValueError("give `device` or `device_map`, not both")
        return self


def tokens_at_once(config: Mapping[str, Any]) -> int:
    """On a CPU as many as its caches hold the activations of; more made a mask a tenth slower (SmolLM2-135M)."""
    return 512 if config.get("device", "cpu") == "cpu" and config.get("device_map") is None else 2048


def text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"`{name}` is {value!r}; it must be a text")
    return value


def switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` is {value!r}; it must be true or false")
    return value


def count(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"`{name}` is {value!r}; it must be a whole number, at least {least}")
    return value


def choice(name: str, value: Any, kind: Any) -> Any:
    """One of a Literal's words."""
    if value not in get_args(kind):
        raise ValueError(f"`{name}` is {value!r}; there is {', '.join(get_args(kind))}")
    return value


def layer_range(value: Any) -> tuple[int, int] | None:
    """`all`, or [first, one after the last]. Whether the model has them is seen when it is loaded."""
    if value == "all":
        return None
    if isinstance(value, list | tuple) and len(value) == 2:
        first, stop = value
        if all(isinstance(each, int) and not isinstance(each, bool) for each in value) and 0 <= first < stop:
            return int(first), int(stop)
    raise ValueError(
        f"`layers` is {value!r}; it must be `all` or [first, stop], counted from 0, `stop` being the first layer "
        "that is left alone: [0, 6] for the first six"
    )


def device_map(value: Any) -> str | Mapping[str, Any] | None:
    if value is None or isinstance(value, str | Mapping):
        return value
    raise ValueError(f"`device_map` is {value!r}; it must be a word such as `auto`, or a mapping of modules to devices")


def texts(name: str, value: Any) -> tuple[str, ...]:
    """A list, or a file with one text a line."""
    if isinstance(value, str):
        try:
            value = Path(value).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"`{name}`: {value} can't be read: {error}") from error
        value = [line for line in value if line.strip()]
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) and each.strip() for each in value):
        raise ValueError(f"`{name}` must be a list of texts, or a file with one a line")
    return tuple(value)
