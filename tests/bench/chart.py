"""The ratios as a picture: SVG by hand, which needs nothing to draw, readable on light and on dark pages."""

from collections.abc import Iterator, Sequence
from html import escape

from tests.bench.figures import Line

WIDTH, LABELS, RIGHT = 860, 420, 70
TOP, STEP, BAR = 44, 24, 14
# Beyond this, a bar ends in an arrow: one large ratio must not make the others invisible.
LARGEST = 4.0
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.quiet { fill: #57606a }
.part { font-weight: 600 }
.met { fill: #2da44e } .missed { fill: #cf222e } .none { fill: #6e7781 }
.target { stroke: #24292f; stroke-width: 2 }
.grid { stroke: #d0d7de; stroke-width: 1 }
.spread { stroke: #24292f; stroke-width: 1; opacity: .55 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #9198a1 }
  .met { fill: #3fb950 } .missed { fill: #f85149 } .none { fill: #8b949e }
  .target, .spread { stroke: #e6edf3 } .grid { stroke: #30363d }
}
"""


def draw(lines: Sequence[Line], title: str) -> str:
    """Draw a bar for each row that has a ratio, with its spread and its target."""
    shown = [line for line in lines if line.ratio is not None]
    bars, height = _bars(shown)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<text x="0" y="16" class="part">{escape(title)}</text>',
            *_grid(height),
            *bars,
            "</svg>",
            "",
        ]
    )


def place(ratio: float) -> float:
    """Say where on the picture a ratio is."""
    return LABELS + min(ratio, LARGEST) / LARGEST * (WIDTH - LABELS - RIGHT)


def _grid(height: int) -> Iterator[str]:
    for ratio in range(int(LARGEST) + 1):
        x = place(ratio)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - 8}"/>'
        yield f'<text class="quiet" x="{x:.1f}" y="{TOP - 14}" text-anchor="middle">{ratio}</text>'


def _bars(lines: Sequence[Line]) -> tuple[list[str], int]:
    drawn: list[str] = []
    y, part = TOP, ""
    for line in lines:
        if line.part != part:
            part = line.part
            drawn.append(f'<text x="0" y="{y + BAR - 2}" class="part">{escape(part)}</text>')
            y += STEP
        drawn += _bar(line, y)
        y += STEP
    return drawn, y + 8


def _bar(line: Line, y: int) -> Iterator[str]:
    ratio = line.ratio or 0.0
    end, middle = place(ratio), y + BAR / 2
    label = f"{line.what}, beside {line.theirs}".replace("`", "")
    yield f'<text x="{LABELS - 8}" y="{y + BAR - 3}" text-anchor="end">{escape(_short(label))}</text>'
    yield f'<rect class="{line.verdict}" x="{LABELS}" y="{y}" width="{end - LABELS:.1f}" height="{BAR}" rx="2"/>'
    if line.spread:
        low, high = (place(each) for each in line.spread)
        yield f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
    if line.target.startswith("ratio") and line.bound is not None:
        x = place(line.bound)
        yield f'<line class="target" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" y2="{y + BAR + 3}"/>'
    text, x = f"{ratio:.2f}{' →' if ratio > LARGEST else ''}", max(end, place((line.spread or (0, 0))[1])) + 8
    yield f'<text class="quiet" x="{x:.1f}" y="{y + BAR - 3}">{text}</text>'


def _short(text: str, most: int = 66) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
