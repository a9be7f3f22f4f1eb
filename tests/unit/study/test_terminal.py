"""What a person reads in a terminal: on a wide and a narrow one, with and without colour, whatever the texts hold."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.console import Console, RenderableType

from spex_proxy.facts.exchange import Exchange, Message, Target
from spex_proxy.facts.explanation import Check, Explanation, Summary
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.study.terminal import FAINTEST, checks_table, explanation_panel, highlighted, listing
from spex_proxy.study.view import make_view
from tests.unit.examples import NOON, a_game, an_exchange, an_explanation

WIDTHS = [40, 80, 120]


def printed(what: RenderableType, width: int = 100, *, colour: bool = False) -> str:
    out = io.StringIO()
    system = "truecolor" if colour else None
    Console(file=out, width=width, force_terminal=colour, color_system=system, legacy_windows=False).print(what)  # type: ignore[arg-type]
    return out.getvalue()


def words(text: str) -> str:
    """What stands there, without frames and line breaks."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def panel(exchange: Exchange | None, explanation: Explanation | None = None) -> RenderableType:
    return explanation_panel(make_view(explanation or an_explanation(), a_game(), exchange))


WIDE = """\
╭─ why this answer?  ab12cd34ef56 ─────────────────────────────────────────────────────────────────╮
│ reliable  it predicts 99% of what masking does to the output                                     │
│ out-of-fold R² 0.987  95% interval 0.971 to 0.993  noise ceiling 0.9999                          │
│ the one strong interaction stands on its parts  DSR 1.00, SCR 1.00, SHR 1.00                     │
│ 3 players  42 masks  12,345 tokens  8 s of the model server                                      │
│ log-probability of the answer: -2.50 with all segments, -16.25 with none                         │
│ prompt ───────────────────────────────────────────────────────────────────────────────────────── │
│ [system] Answer from the notes.                                                                  │
│ [tool:search] The bell is in Oslo. It rang twice.                                                │
│ [user] Where is the bell?                                                                        │
│ answer ───────────────────────────────────────────────────────────────────────────────────────── │
│ In Oslo.                                                                                         │
│ what moved it  (nats of log-probability that keeping the segment adds) ───────────────────────── │
│ 1  +4.00  ████████████  The bell is in Oslo.  tool:search                                        │
│ 3  +2.00  ██████        Where is the bell?  user                                                 │
│ 2  -0.50  ██            It rang twice.  tool:search                                              │
│ what acted together ──────────────────────────────────────────────────────────────────────────── │
│ 1×3  +3.00  more than one by one  The bell is in Oslo.  ×  Where is the bell?                    │
╰──────────────────────────────────────────────────────────────────────────────────────────────────╯
"""


def test_the_whole_picture() -> None:
    assert printed(panel(an_exchange())) == WIDE


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_lost_on_any_console_and_no_colour_is_needed(width: int) -> None:
    said = words(printed(panel(an_exchange()), width))
    for fact in (
        "reliable it predicts 99%", "out-of-fold R² 0.987", "0.971 to 0.993", "noise ceiling 0.9999",
        "the one strong interaction stands on its parts DSR 1.00, SCR 1.00, SHR 1.00",
        "42 masks", "12,345 tokens", "-2.50 with all segments", "-16.25 with none",
        "[tool:search] The bell is in Oslo. It rang twice.", "In Oslo.",
    ):  # fmt: skip
        assert fact in said
    # numbers and signs of the ranking, in order; of what acted together
    assert re.findall(r"(\d) ([+-]\d\.\d\d) █", said) == [("1", "+4.00"), ("3", "+2.00"), ("2", "-0.50")]
    assert "1×3 +3.00" in said
    assert max(len(line) for line in printed(panel(an_exchange()), width).splitlines()) <= width


def test_colours_tell_what_raises_from_what_lowers() -> None:
    lines = printed(panel(an_exchange()), colour=True).splitlines()
    (prompt,) = (line for line in lines if "It rang twice." in line and "Oslo" in line)
    raises, lowers = re.findall(r"48;2;(\d+);(\d+);(\d+)", prompt)
    assert raises == ("31", "119", "180")  # the strongest is the full blue
    assert int(lowers[0]) > int(lowers[2])  # a pale orange: more red than blue
    (system,) = (line for line in lines if "Answer from the notes." in line)
    assert "48;2;" not in system  # nobody's text has no colour


def test_faint_effects_are_left_uncoloured() -> None:
    faint = Spectrum.from_terms(3, [(0,), (1,)], [-10.0, 10.0 * FAINTEST * 0.99])
    view = make_view(an_explanation(spectrum=faint), a_game(), an_exchange())
    painted = {
        str(span.style)
        for span in highlighted(view).spans
        if "on rgb" in str(span.style)
    }  # fmt: skip
    assert len(painted) == 1


def test_nothing_to_explain_is_said_first_and_nothing_is_coloured_or_ranked() -> None:
    nothing = an_explanation(
        verdict="nothing_to_explain",
        verdict_reason="removing everything changes the output no more than asking again does",
        spectrum=Spectrum.from_terms(3, [()], [-9.0]),
        interactions=(),
    )
    said = words(printed(panel(an_exchange(), nothing)))
    assert said.index("nothing to explain") < said.index("The bell is in Oslo.")
    assert "changes the output no more than asking again does" in said
    assert "what moved it" not in said
    assert "what acted together" not in said
    assert "█" not in said
    assert "48;2;" not in printed(panel(an_exchange(), nothing), colour=True)


def test_unreliable_stands_first() -> None:
    unsure = an_explanation(verdict="unreliable", verdict_reason="it predicts 20% of it")
    assert words(printed(panel(an_exchange(), unsure))).startswith(
        "why this answer? ab12cd34ef56 NOT RELIABLE it predicts 20% of it"
    )


def test_erased_content() -> None:
    said = words(printed(panel(None)))
    assert "[tool:search] [erased: 21 characters][erased: 15 characters] [user] [erased: 18 characters]" in said
    assert "+4.00" in said
    assert "answer In Oslo" not in said


def test_a_cut_answer_is_said_to_be_cut() -> None:
    cut = an_explanation(target=Target(0, 128, is_cut=True))
    assert "only the first 128 tokens of the answer are explained" in words(printed(panel(an_exchange(), cut)))
    assert "only the first" not in words(printed(panel(an_exchange())))


def test_players_without_any_effect_are_not_ranked() -> None:
    said = words(printed(panel(an_exchange(), an_explanation(spectrum=Spectrum.from_terms(3, [(2,)], [-1.0])))))
    assert re.findall(r"(\d) ([+-]\d\.\d\d) █", said) == [("3", "+2.00")]


# --- texts of strangers, in the terminal of an auditor


HOSTILE = "[bold]x[/bold] [/nope] :smile: \x1b[2J\x1b]0;title\x07 \x9b31m \r\x08 \u202egnp.exe \ud800"


def hostile_exchange() -> Exchange:
    messages = (Message("user", HOSTILE), Message("tool", "The bell is in Oslo. It rang twice.\n", HOSTILE))
    return an_exchange(messages=(*messages, Message("user", "Where is the bell?")), output_text=HOSTILE)


def obeyed(text: str) -> set[str]:
    """Characters that a terminal, or an eye, would be misled by."""
    return set(re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text))


def test_no_text_commands_the_terminal() -> None:
    out = printed(panel(hostile_exchange()))
    assert obeyed(out) == set()
    assert "[bold]x[/bold] [/nope] :smile: ␛[2J␛]0;title␇ <U+009B>31m ␍␈ <U+202E>gnp.exe" in words(out)


def test_line_ends_of_windows_are_line_ends() -> None:
    text = "one\r\ntwo\r\n"
    messages = (Message("user", text), *an_exchange().messages[1:])
    out = printed(panel(an_exchange(messages=messages)))
    assert "[user] one " in out
    assert "│ two " in out
    assert "␍" not in out


ROW = Summary(
    exchange_id="0199b3c5-0000-7000-8000-000000000001",
    upstream_id="chatcmpl-1",
    received_at=NOON,
    model="tiny",
    state="reliable",
    explanation_id="ab12cd34",
    r2=0.98765,
    answer="In Oslo.",
)


def test_listing() -> None:
    waiting = dataclasses.replace(ROW, upstream_id=None, state="queued", explanation_id=None, r2=None, answer="")
    lines = printed(listing([ROW, waiting]), 140).splitlines()
    assert lines[0].split() == ["when", "(UTC)", "id", "upstream", "id", "model", "state", "R²", "answer"]
    assert lines[1].split() == [
        "2026-11-22", "12:00:00", ROW.exchange_id, "chatcmpl-1", "tiny", "reliable", "0.988", "In", "Oslo.",
    ]  # fmt: skip
    assert lines[2].split() == ["2026-11-22", "12:00:00", ROW.exchange_id, "tiny", "queued"]


@pytest.mark.parametrize("width", [80, 120])
def test_an_id_in_a_list_can_be_copied(width: int) -> None:
    long = dataclasses.replace(ROW, upstream_id="chatcmpl-" + "f" * 32, answer="word " * 12)
    assert ROW.exchange_id in printed(listing([long]), width)


def test_a_list_shows_texts_as_they_are() -> None:
    row = dataclasses.replace(ROW, answer=HOSTILE, state="failed: [/x]", model="[red]m")
    out = printed(listing([row]), 240)
    assert obeyed(out) == set()
    for text in ("[bold]x[/bold] [/nope] :smile:", "failed: [/x]", "[red]m"):
        assert text in out


def test_checks_say_passed_failed_or_skipped_without_colour() -> None:
    checks = [
        Check("blocks are whole", True, "3 blocks"),
        Check("values follow", False, "not so in block 2 [/x]"),
        Check("masks were asked", True, "content was erased", is_skipped=True),
    ]
    assert [words(line) for line in printed(checks_table(checks)).splitlines()] == [
        "✓ blocks are whole 3 blocks",
        "✗ values follow not so in block 2 [/x]",
        "– masks were asked content was erased",
    ]
