"""What each built-in flagger finds, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from spex_proxy.engine.indices import rank_interactions
from spex_proxy.facts.exchange import Choice, Exchange, Segment, Segmentation, ToolCall
from spex_proxy.facts.explanation import Explanation
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.plug import answers
from spex_proxy.plug.kinds import ABOUT, Seen
from spex_proxy.plug.load import Plugins
from tests.contract.store.samples import Make
from tests.unit.examples import an_exchange

PLUGINS = Plugins()
ANSWER = "The key is API_KEY-1234."


def look(name: str, seen: Exchange | Seen, **options: Any) -> list[tuple[str, float | None]]:
    flagger = PLUGINS.flagger(name)
    flagger.check(options)
    return list(answers.inspect(flagger, name, seen if isinstance(seen, Seen) else Seen(seen), options))


def saying(text: str, **changes: Any) -> Exchange:
    choice = Choice(text, changes.get("finish_reason", "stop"), **changes.pop("choice", {}))
    return replace(an_exchange(), output_text=text, choices=(choice,), **changes)


def test_all_built_in_flaggers_load() -> None:
    names = PLUGINS.names("flagger")
    assert {"regex", "refusal", "untrusted", "dominant", "overruled"} <= set(names)
    assert {PLUGINS.flagger(name).about for name in names} == set(ABOUT)


def test_regex_says_where_and_quotes_nothing() -> None:
    ((detail, score),) = look("regex", saying(ANSWER), output="API_KEY")
    assert (detail, score) == ("in answer 1, characters 11 to 18", None)
    assert look("regex", saying(ANSWER), output="secret") == []


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot do this.",
        "I can't assist with that request.",
        "I am unable to provide medical advice.",
        "As an AI language model, I cannot have opinions.",
        "  Sorry, I'm unable to share this.",
    ],
)
def test_a_refusal_is_seen(text: str) -> None:
    assert len(look("refusal", saying(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry for your loss.",
        "It is warm. I can't believe it.",
        "I can help you with that.",
        "The model said: I can't help with that.",
        "",
    ],
)
def test_an_answer_is_no_refusal(text: str) -> None:
    assert look("refusal", saying(text)) == []


def test_low_confidence_needs_log_probabilities() -> None:
    sure = saying("a b", choice={"logprobs": (("a", -0.1), (" b", -0.2))})
    unsure = saying("a b", choice={"logprobs": (("a", -1.0), (" b", -4.0))})
    assert look("low_confidence", sure) == look("low_confidence", saying("a b")) == []
    assert look("low_confidence", unsure) == [("mean log-probability -2.50, below -1.5", -2.5)]
    ((detail, score),) = look("low_confidence", unsure, lowest_below=-3)
    assert (score, "lowest" in detail) == (-4.0, True)


def test_a_tool_that_is_called() -> None:
    calls = saying("", choice={"tool_calls": (ToolCall("search", "{}"), ToolCall("book_table", "{}"))})
    assert [detail for detail, _ in look("tool_called", calls)] == ["tool call 1 fits *", "tool call 2 fits *"]
    assert [detail for detail, _ in look("tool_called", calls, tool="book_*")] == ["tool call 2 fits book_*"]
    assert look("tool_called", saying("x")) == []


def test_how_it_ended_and_how_long_it_took() -> None:
    cut = saying("x", finish_reason="length", duration_s=9.0, first_byte_s=0.2)
    assert look("finish_reason", cut) == [("finish_reason length", None)]
    assert look("finish_reason", cut, reason="stop") == []
    assert look("latency", cut, duration_s=5, first_byte_s=1) == [("duration_s 9.00, more than 5", 9.0)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("regex", {}),
        ("regex", {"output": "(?=a)"}),
        ("regex", {"outputs": "a"}),
        ("latency", {}),
        ("latency", {"duration_s": "5"}),
        ("low_confidence", {"mean_below": True}),
        ("tool_called", {"tool": []}),
        ("untrusted", {"share": 2}),
    ],
)
def test_options_that_make_no_sense_are_refused(name: str, options: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"option|must be|needed|expression"):
        PLUGINS.flagger(name).check(options)


# --------------------------------------------------------------------------------- of explanations

ROLES = ("system", "user", "user", "tool")


def explained(terms: Mapping[tuple[int, ...], float], provenance: Mapping[int, str] | None = None) -> Seen:
    """Effects (Banzhaf, of one player or a pair) as an explanation of four players."""
    fourier = {players: effect / (-2.0) ** len(players) for players, effect in terms.items()}
    spectrum = Spectrum.from_terms(4, [(), *fourier], [-5.0, *fourier.values()])
    made: Explanation = Make().explanation("x", ("g",), spectrum=spectrum, interactions=rank_interactions(spectrum))
    marks = provenance or {}
    segments = tuple(Segment(i, 0, 5, 5 * i, 5 * i + 5, role, marks.get(i, role)) for i, role in enumerate(ROLES))
    return Seen(an_exchange(), made, Segmentation("sentence", segments))


def test_a_tool_result_that_carries_the_effect() -> None:
    seen = explained({(1,): 1.0, (3,): 4.0})
    assert look("untrusted", seen) == [("segment 4 (tool) carries 80% of the effects", pytest.approx(0.8))]
    assert look("untrusted", explained({(1,): 4.0, (3,): 0.1})) == []
    assert look("untrusted", explained({(1,): 4.0, (3,): -4.0})) == [], "it speaks against the answer"
    assert look("untrusted", replace(seen, explanation=replace(seen.explanation, verdict="unreliable"))) == []  # type: ignore[type-var]


def test_a_retrieved_document_is_untrusted_whoever_sent_it() -> None:
    assert look("untrusted", explained({(2,): 4.0}, {2: "user > Document 2"}))
    assert look("untrusted", explained({(2,): 4.0})) == []
    assert look("untrusted", explained({(0,): 4.0}, {0: "system > Document 1"})) == []


def test_a_tool_result_that_joins_an_interaction() -> None:
    ((detail, score),) = look("untrusted", explained({(1,): 4.0, (1, 3): 3.0}))
    assert (detail, score) == (
        "segments 2, 4 act together, 75% as strongly as the strongest effect", pytest.approx(0.75),
    )  # fmt: skip
    assert look("untrusted", explained({(1,): 4.0, (1, 2): 3.0})) == []


def test_one_that_dominates_and_a_system_prompt_that_is_overruled() -> None:
    assert look("dominant", explained({(1,): 9.0, (2,): 1.0})) == [
        ("segment 2 carries 90% of the effects", pytest.approx(0.9))
    ]
    assert look("dominant", explained({(1,): 2.0, (2,): 1.0})) == []
    assert look("overruled", explained({(0,): -3.0, (1,): 3.0})) == [
        ("the system prompt carries 50% of the effects, against the answer", pytest.approx(0.5))
    ]
    assert look("overruled", explained({(0,): 3.0, (1,): 3.0})) == []
