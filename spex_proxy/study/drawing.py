"""A study as one picture: SVG with its colours inside, for notebooks, papers and files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from spex_proxy.study import words
from spex_proxy.study.board import Board
from spex_proxy.study.painted import SegmentSheet
from spex_proxy.study.sheet import Together
from spex_proxy.study.text import label

WIDTH = 760
ROW = 24
"""Height of a line, in pixels."""
LABEL = 34
"""Characters of a player's name."""
GROUPS = 6
"""Groups under the players."""
BLUES = ("#ecf4fb", "#d9e9f7", "#c1dcf2", "#a5cdec", "#86bae4", "#67a7db")
ORANGES = ("#fdf1e6", "#fce3cc", "#fad2ab", "#f7be87", "#f3a962", "#ec9340")
GREYS = ("#f3f3f1", "#ececea", "#e3e3df", "#d5d5d1", "#c9cac6", "#b8b9b5")


@dataclass(frozen=True, slots=True)
class Drawing:
    """An SVG. A notebook shows it; `save` writes it."""

    svg: str

    def save(self, path: str | Path) -> Path:
        file = Path(path)
        file.write_text(self.svg, encoding="utf-8")
        return file

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"Drawing(svg of {len(self.svg):,} characters; .save(path) writes it)"


@dataclass(frozen=True, slots=True)
class Line:
    """A player's or a group's line of the picture."""

    top: float
    name: str
    reading: str
    effect: str
    start: float
    length: float
    colour: str
    edge: str


def draw(board: Board, k: int) -> Drawing:
    """The `k` strongest players and the strongest groups that are clearly there. Raises ValueError for k < 1."""
    if k < 1:
        raise ValueError(f"can't draw {k} players")
    players = board.ranked[:k] if board.is_coloured else ()
    groups = [row for row in board.together if not row.is_faint][:GROUPS]
    head = 92
    lines = [_player(board, one, head + ROW * at) for at, one in enumerate(players)]
    under = head + ROW * len(lines) + 52
    joined = [_group(board, row, under + ROW * at) for at, row in enumerate(groups)]
    f = board.fit.fidelity
    height = (under + ROW * len(joined) if joined else head + ROW * len(lines)) + 12
    said = words.r2_reading(f, board.fit.how["method"])
    svg = (
        _template()
        .get_template("study.svg")
        .render(
            width=WIDTH,
            height=height,
            lines=lines,
            joined=joined,
            under=under,
            zero=round(280 + 4.0 * players[0].bar.zero, 2) if players else None,
            bottom=head + ROW * len(lines),
            badge=words.sentence(board.badge),
            said=f"{said}; {f.masks:,} masks" if board.is_coloured else board.fit.verdict_reason,
            near=words.sentence(board.near),
            unit=board.unit,
            weaker=len(board.ranked) - len(players) if players else 0,
        )
    )
    return Drawing(svg.strip())


def _player(board: Board, one: SegmentSheet, top: float) -> Line:
    start, length = round(280 + 4.0 * one.bar.start, 2), round(4.0 * one.bar.length, 2)
    palette, edge = _palette(board, one.step)
    return Line(top, label(one.label, LABEL), "", one.effect, start, length, palette[max(0, abs(one.step) - 1)], edge)


def _group(board: Board, row: Together, top: float) -> Line:
    palette, edge = _palette(board, row.step)
    each = max(8, 56 // len(row.labels))
    name = " × ".join(label(text, each) for text in row.labels)
    return Line(top, name, row.reading, row.effect, 0.0, 0.0, palette[-1], edge)


def _palette(board: Board, step: int) -> tuple[tuple[str, ...], str]:
    """Fills from faint to strong, and the colour of the edge."""
    if board.is_muted or step == 0:
        return GREYS, "#8a8f96"
    return (BLUES, "#2373b3") if step > 0 else (ORANGES, "#b45f06")


@cache
def _template() -> Environment:
    folder = FileSystemLoader(Path(__file__).parent / "templates")
    return Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
