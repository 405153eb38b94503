"""Draw the figure of README.md and of the site's first page: what each recipe leaves, at 4, 3 and 2 bits.

    python tools/draw_divergence.py        docs/_site/divergence-light.svg and -dark.svg

The numbers are those of docs/paper/main.md, where `tools/refresh_paper.py` wrote them: the divergence from the float
model, of the embedded model with grown channels, groups of 128. Plain SVG by hand: text stays text, for those who
read it by ear, and the file needs no library and no font.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "paper" / "main.md"
RESULT = "<!-- result: main --outliers 32 --seeds 3 --samples 64 -->"
RECIPES = {"rtn": "round to nearest", "awq": "AWQ", "best": "best"}
COLORS = {  # ink, rule, one per recipe; at least 3 : 1 against the page
    "light": ("#1f2328", "#d0d7de", ("#8c959f", "#0969da", "#1a7f37")),
    "dark": ("#e6edf3", "#3d444d", ("#7d8590", "#4493f8", "#3fb950")),
}
WIDTH, LABELS, BAR, GAP, SECTION = 520, 124, 18, 4, 22


def numbers(page: str) -> dict[tuple[str, str], float]:
    """Return (recipe, column) -> divergence of the page's table, without what stands after the plus-minus sign."""
    table = page[page.index(RESULT) :].partition("| KL from FP16")[2]
    head, _, *rows = table.partition("\n\n")[0].splitlines()
    columns = [cell.strip() for cell in head.split("|")[1:-1]]
    found = {}
    for row in rows:
        name, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        for column, cell in zip(columns, cells, strict=True):
            found[name, column] = float(re.split(r"\s", cell)[0])
    return found


def _text(
    x: float, y: float, text: str, ink: str, *, size: int = 14, anchor: str = "start", bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" fill="{ink}" font-size="{size}" text-anchor="{anchor}"{weight}>{text}</text>'


def draw(values: dict[tuple[str, str], float], theme: str) -> str:
    """Return the figure: a panel for each width, its bars to the panel's own scale."""
    ink, rule, colors = COLORS[theme]
    out = [_text(0, 18, "What quantization does to a model's predictions", ink, size=17, bold=True)]
    out.append(_text(0, 38, "divergence from the float model, nats per token; less is better", ink, size=13))
    y = 58
    for bits in ("INT4", "INT3", "INT2"):
        worst = max(values[recipe, f"{bits} g128"] for recipe in RECIPES)
        out.append(f'<line x1="0" x2="{WIDTH}" y1="{y}" y2="{y}" stroke="{rule}"/>')
        y += SECTION
        out.append(_text(0, y - 2, bits, ink, bold=True))
        for color, (recipe, label) in zip(colors, RECIPES.items(), strict=True):
            value = values[recipe, f"{bits} g128"]
            length = (WIDTH - LABELS - 110) * value / worst
            share = "" if recipe == "rtn" else f"  ({value / values['rtn', f'{bits} g128']:.0%})"
            out.append(_text(LABELS - 8, y + 14, label, ink, anchor="end"))
            out.append(
                f'<rect x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{color}"/>'
            )
            out.append(_text(LABELS + length + 8, y + 14, f"{value:.4f}{share}", ink))
            y += BAR + GAP
        y += 5
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" font-family="{font}">\n'
        "<title>Divergence of quantized models from the float model</title>\n" + "\n".join(out) + "\n</svg>\n"
    )


def main() -> None:
    """Write both figures."""
    values = numbers(PAGE.read_text(encoding="utf-8"))
    for theme in COLORS:
        path = ROOT / "docs" / "_site" / f"divergence-{theme}.svg"
        path.write_text(draw(values, theme), encoding="utf-8")


if __name__ == "__main__":
    main()
