"""The parts of an explanation that follow from its fit and its evidence; `verify` makes them again."""

from __future__ import annotations

from collections.abc import Sequence

from spex_proxy.facts.evidence import Block
from spex_proxy.facts.exchange import Target
from spex_proxy.facts.explanation import Cost, Flag, Verdict


def cost_of(blocks: Sequence[Block]) -> Cost:
    """What the evidence cost the model server, whichever job paid for it."""
    return Cost(
        masks=sum(len(block.values) for block in blocks),
        prompt_tokens=sum(block.prompt_tokens for block in blocks),
        cached_tokens=sum(block.cached_tokens for block in blocks),
        seconds=sum(block.seconds for block in blocks),
    )


def flags_of(verdict: Verdict, reason: str, target: Target) -> tuple[Flag, ...]:
    """What a person must know before reading on."""
    flags = [] if verdict == "reliable" else [Flag(verdict, reason, flagger="verdict")]
    if target.is_cut:
        said = f"only the first {len(target)} tokens of the answer are explained"
        flags.append(Flag("output_cut", said, flagger="target"))
    return tuple(flags)
