"""An explanation in a terminal: highlighted text, ranked segments, what acts together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from spex_proxy.facts.aim import WHOLE_OUTPUT
from spex_proxy.facts.exchange import MARK_ARROW
from spex_proxy.facts.explanation import Check, Summary
from spex_proxy.study import words
from spex_proxy.study.again import RetestSheet
from spex_proxy.study.coalitions import Table as Table_
from spex_proxy.study.view import InteractionView, SegmentView, View

RAISES = (31, 119, 180)
LOWERS = (214, 95, 14)
"""Blue and orange: told apart by the colour-blind too. Text also carries + and -."""
FAINTEST = 0.08
"""Effects under this share of the largest are left uncoloured: most of them are noise."""
ID_WIDTH = 36
SHORT_ID = 18
"""So much of an id names the microsecond: enough to find it by."""
WIDE = 140
"""Columns from which everything fits."""
BAR_WIDTH = 12
"""Leaves room for words on a console of 40 columns."""
_CONTROLS = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
    | {0x7F: 0x2421}
    | {code: f"<U+{code:04X}>" for code in (*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
    | dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)
)
"""What a text may do to a terminal, or to the order in which it is read, made visible instead."""
BADGE_STYLES = {"reliable": "bold green", "unreliable": "bold red", "nothing_to_explain": "bold yellow"}


def explanation_panel(view: View, top: int = 8) -> RenderableType:
    """The whole picture of one explanation."""
    return Panel(
        Group(*_parts(view, top)),
        title=f"[bold]{view.terms.title.lower()}[/bold]  {view.explanation.id[:12]}",
        title_align="left",
        border_style="dim",
    )


def checks_table(checks: Sequence[Check]) -> RenderableType:
    """What `verify` found, one line a link of the chain."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        mark = ("–", "yellow") if check.is_skipped else ("✓", "green") if check.is_passed else ("✗", "bold red")
        table.add_row(Text(*mark), _text(check.name), _text(check.detail, "dim"))
    return table


def coalition_table(found: Table_) -> RenderableType:
    """The 2^k table: which of the chosen segments are kept, and what the answer is worth then."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for player in found.players:
        table.add_column(str(player + 1), justify="center")
    table.add_column("everything else kept", justify="right")
    table.add_column("")
    table.add_column("average over random masks", justify="right")
    for line in found.lines:
        average = "none stored" if line.average is None else words.decimal(line.average)
        error = f" ±{2 * line.error:.2f}" if line.error is not None else ""
        source = Text("measured", "dim") if line.is_measured else Text("predicted", "italic yellow")
        marks = ("●" if kept else "○" for kept in line.kept)
        table.add_row(*marks, words.decimal(line.value), source, f"{average}{error}")
    if len(found.players) > 1:
        table.add_row(*("" for _ in found.players), f"{words.signed(found.joint)}", Text("together", "bold"), "")
    return table


def retest_panel(found: RetestSheet) -> RenderableType:
    """What the model said when it was asked again, each answer under its name."""
    parts: list[RenderableType] = []
    for number, text in zip(found.numbers, found.labels, strict=True):
        parts.append(_text(f"left out  {number}  {text}", "dim"))
    for said in found.said:
        parts.append(Rule(f"{said.title}  [dim]({said.note})[/dim]", style="dim", align="left"))
        shown = "".join(piece.text for piece in said.text)
        more = f"\n(and {said.left_out:,} more characters)" if said.left_out else ""
        parts.append(_text(f"{shown or '(empty)'}{more}", "italic"))
    if found.sentence:
        parts.append(Rule(style="dim"))
        parts.append(_text(found.sentence))
    elif found.reason:
        parts.append(_text(found.reason, "yellow"))
    return Panel(Group(*parts), title=f"[bold]{found.headline}[/bold]", title_align="left", border_style="dim")


def listing(rows: Sequence[Summary], width: int = WIDE) -> RenderableType:
    """Exchanges, newest first, and what became of them. In few columns ids are cut to what still finds them."""
    is_wide = width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("when (UTC)", "id", *(("upstream id", "model") if is_wide else ()), "state", "R²", "answer"):
        shortest = {"id": ID_WIDTH if is_wide else SHORT_ID, "when (UTC)": 14}.get(name)
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=shortest)
    for row in rows:
        table.add_row(
            f"{row.received_at:%Y-%m-%d %H:%M:%S}" if is_wide else f"{row.received_at:%m-%d %H:%M:%S}",
            row.exchange_id if is_wide else row.exchange_id[:SHORT_ID],
            *((_text(row.upstream_id or ""), _text(row.model)) if is_wide else ()),
            _text(row.state),
            "" if row.r2 is None else f"{row.r2:.3f}",
            _text(row.answer),
        )
    return table


def _parts(view: View, top: int) -> Iterator[RenderableType]:
    yield _header(view)
    yield Rule(view.terms.where if not view.groups else view.terms.players, style="dim", align="left")
    yield grid(view) if view.groups else highlighted(view)
    if view.exchange is not None and not view.groups:
        yield Rule("answer", style="dim", align="left")
        yield _text(view.exchange.output_text.strip(), "italic")
    if view.explanation.verdict == "nothing_to_explain":
        return
    what = "nats of log-probability" if view.unit == "nats" and not view.groups else view.unit or view.measured
    yield Rule(f"what moved it  ({what} that keeping the {view.terms.player} adds)", style="dim", align="left")
    yield _ranking(view.ranked[:top])
    if view.interactions:
        yield Rule("what acted together", style="dim", align="left")
        yield _together(view, top)


def _header(view: View) -> RenderableType:
    explanation, fidelity = view.explanation, view.explanation.fidelity
    head = Text()
    head.append(f"{view.badge}", style=BADGE_STYLES[explanation.verdict])
    head.append_text(_text(f"  {explanation.verdict_reason}\n", "dim"))
    near = explanation.how.get("near")
    if near and explanation.verdict != "nothing_to_explain":
        head.append(f"{words.near_reading(near, view.unit, view.terms.full)}\n")
    head.append(f"out-of-fold R² {fidelity.r2:.3f}", style="bold")
    head.append(f"  95% interval {fidelity.r2_low:.3f} to {fidelity.r2_high:.3f}")
    head.append(f"  noise ceiling {fidelity.noise_ceiling:.4f}\n")
    if explanation.verdict != "nothing_to_explain":
        head.append(words.hierarchy_reading(view.hierarchy, view.terms.players))
        head.append(f"  {words.hierarchy_rates(view.hierarchy)}\n", "dim")
    tokens = f"{explanation.cost.prompt_tokens:,} tokens  " if explanation.cost.prompt_tokens or not view.groups else ""
    head.append(f"{len(view.segments)} players  {explanation.cost.masks} masks  {tokens}")
    head.append(f"{explanation.cost.seconds:.0f} s of {view.terms.source}\n")
    head.append(f"{view.measured}: {fidelity.value_full:.2f} with all {view.terms.players}")
    head.append(f", {fidelity.value_empty:.2f} with none")
    if explanation.recipe.target != WHOLE_OUTPUT:
        head.append(f"\ntarget: {explanation.target.label}", style="bold")
    if explanation.target.is_cut:
        head.append(f"\nonly the first {len(explanation.target)} tokens of the answer are explained", style="yellow")
    for note in view.notes:
        head.append(f"\n{note}", style="yellow")
    return head


def grid(view: View) -> RenderableType:
    """A game's players, coloured by effect, group by group: of attention heads, a map of layers and heads."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name in dict.fromkeys(view.groups):
        cells = Text()
        for segment, group in zip(view.segments, view.groups, strict=True):
            if group == name:
                cells.append(f" {segment.number:>3} ", _colour(segment)).append(" ")
        table.add_row(_text(name), cells)
    return table


def highlighted(view: View) -> Text:
    """The prompt, segments coloured by effect, with the provenance of each message."""
    text = Text()
    message = -1
    for passage in view.passages:
        if passage.message != message:
            message = passage.message
            text.append("" if not text or text.plain.endswith("\n") else "\n")
            text.append_text(_text(f"[{passage.provenance.partition(MARK_ARROW)[0]}] ", "bold dim"))
        style = _colour(passage.segment) if passage.segment else ""
        body = passage.text.rstrip("\r\n")
        text.append_text(_text(body, style))
        text.append("\n" if len(passage.text) > len(body) else "")
    return text


def _colour(segment: SegmentView) -> str:
    if abs(segment.strength) < FAINTEST:
        return ""
    red, green, blue = RAISES if segment.effect > 0 else LOWERS
    share = 0.25 + 0.75 * abs(segment.strength)
    paper = [round(255 - (255 - part) * share) for part in (red, green, blue)]
    ink = "black" if sum(paper) > 380 else "white"
    return f"{ink} on rgb({paper[0]},{paper[1]},{paper[2]})"


def _ranking(segments: Sequence[SegmentView]) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for segment in segments:
        if segment.effect == 0:
            continue
        red, green, blue = RAISES if segment.effect > 0 else LOWERS
        bar = Text("█" * max(1, round(BAR_WIDTH * abs(segment.strength))), style=f"rgb({red},{green},{blue})")
        label = _text(segment.label(60)).append_text(_text(f"  {segment.provenance.removeprefix('player:')}", "dim"))
        table.add_row(str(segment.number), f"{segment.effect:+.2f}", bar, label)
    return table


def _together(view: View, top: int) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for interaction in view.interactions[:top]:
        numbers = "×".join(str(number) for number in interaction.numbers)
        table.add_row(numbers, _effect(interaction), interaction.reading, _text("  ×  ".join(interaction.labels)))
    return table


def _effect(interaction: InteractionView) -> str:
    """With two standard errors where they are known."""
    if interaction.standard_error is None:
        return f"{interaction.effect:+.2f}"
    return f"{interaction.effect:+.2f} ±{2 * interaction.standard_error * 2 ** len(interaction.numbers):.2f}"


def _text(text: str, style: str = "") -> Text:
    """Foreign text as it is: no markup of ours in it, and nothing that a terminal obeys."""
    return Text(harmless(text), style=style)


def harmless(text: str) -> str:
    """What a text may do to a terminal, made visible instead."""
    return text.replace("\r\n", "\n").translate(_CONTROLS)
