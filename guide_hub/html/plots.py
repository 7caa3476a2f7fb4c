"""Plots as inline SVG with the page's own colours and font. The same figures give the same bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from guide_hub.attacks.base import Curve
from guide_hub.html.page import Chart, Likeness, Matrix, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.2  # inches: 300 points, so that a phone shows the text at its size
SHOWN_ROWS = 24  # of a plot's table

# What is drawn in these colours takes the page's variable of that name.
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES = ["#0101a1", "#0101a2", "#0101a3", "#0101a4", "#0101a5"]
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", PAPER: "paper"} | {
    colour: f"series-{k + 1}" for k, colour in enumerate(SERIES)
}
DASHES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]  # told apart without colour
GROUPS = r"figure|axes|patch|line2d|text|matplotlib\.axis|xtick|ytick|legend"  # ids that nothing refers to
MARKERS = ["o", "s", "^", "D", "v"]


def curve(found: Curve, key: str) -> Chart:
    """Lines over `x`, with limits. `key` is an HTML id that no other chart of the page has."""
    entries = len(found.lines) + len(found.limits)
    figure, axes = _figure(2.3, entries)
    for k, (name, values) in enumerate(found.lines.items()):
        drawn = [math.nan if v is None else v for v in values]
        few = len(drawn) <= 30
        axes.plot(
            found.x, drawn, label=name, color=SERIES[k % len(SERIES)], linewidth=1.6,
            linestyle=DASHES[k // len(SERIES) % len(DASHES)] if len(found.lines) > 5 else DASHES[k],
            marker=MARKERS[k % len(MARKERS)] if few else None, markersize=4,
        )  # fmt: skip
    for name, value in found.limits.items():
        axes.axhline(value, color=INK, linewidth=1, linestyle=(0, (2, 2)), label=f"{name} {value:.2f}")
    axes.set_xlabel(found.x_label)
    axes.set_ylabel(found.y_label)
    _scale(axes, found)
    if entries > 1:
        _legend(figure)
    return Chart(found.title, svg(figure, key, _in_words(found)), _table(found))


def likeness(people: Sequence[Likeness], key: str) -> Chart:
    """Each person before and now, own and held-out photos, beside the threshold."""
    held_out = any(p.others_now is not None for p in people)
    figure, axes = _figure(0.6 + 0.5 * len(people), 5 if held_out else 3)
    for k, p in enumerate(people):
        y = len(people) - 1 - k
        pairs: list[tuple[float | None, float | None, str, int, float]] = [
            (p.before, p.now, "o", 0, 0.13 if held_out else 0.0)
        ]
        if held_out:
            pairs.append((p.others_before, p.others_now, "s", 1, -0.13))
        for before, now, marker, series, dy in pairs:
            if now is None:
                continue
            if before is not None:
                axes.plot([before, now], [y + dy] * 2, color=SERIES[series], linewidth=1.2, zorder=1)
                axes.plot(before, y + dy, marker, color=SERIES[series], markerfacecolor=PAPER, markersize=6)
            axes.plot(now, y + dy, marker, color=SERIES[series], markersize=6)
        axes.plot([p.threshold] * 2, [y - 0.36, y + 0.36], color=INK, linewidth=1.4, linestyle=(0, (2, 1.5)))
    axes.set_yticks(range(len(people)), [_clip(p.name) for p in reversed(people)])
    axes.set_ylim(-0.6, len(people) - 0.4)
    axes.set_xlabel("cosine to the photos")
    own, others = ("fitted photos", "held-out photos")
    names = [(own, "o", 0), (others, "s", 1)] if held_out else [(own, "o", 0)]
    for name, marker, series in names:
        axes.plot([], [], marker, color=SERIES[series], markerfacecolor=PAPER, label=f"{name}, before")
        axes.plot([], [], marker, color=SERIES[series], label=f"{name}, now")
    axes.plot([], [], color=INK, linestyle=(0, (2, 1.5)), label="threshold")
    _legend(figure)
    words = "; ".join(
        f"{p.name} from {'unknown' if p.before is None else f'{p.before:.2f}'} to {p.now:.2f}, "
        f"threshold {p.threshold:.2f}" for p in people
    )  # fmt: skip
    return Chart("Likeness before and now", svg(figure, key, f"Mean cosine to the photos: {words}."))


def layers(change: dict[str, float], key: str) -> Chart:
    """How far each layer's weights have moved: |change| / |weights|."""
    figure, axes = _figure(0.45 + 0.165 * len(change))
    names = [*change]
    axes.barh(range(len(names)), [100 * change[n] for n in names], color=SERIES[0], height=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_xlabel("change of the weights, % of their norm")
    most = max(change, key=lambda n: change[n])
    words = f"Relative change of {len(change)} layers; the most is {change[most]:.1%}, in {most}."
    table = Table(["layer", "change"], [[n, f"{v:.2%}"] for n, v in change.items()])
    return Chart("Drift of the weights", svg(figure, key, words), table)


def reemergence(found: Matrix) -> Curve:
    """One line a person over the steps, or with many people the mean and the worst."""
    x = [float(k + 1) for k in range(len(found.rows))]
    limits = {} if found.threshold is None else {"threshold": found.threshold}
    if len(found.columns) <= len(SERIES):
        lines = {name: [row[j] for row in found.values] for j, name in enumerate(found.columns)}
    else:
        known = [[v for v in row if v is not None] for row in found.values]
        lines = {
            "mean": [sum(row) / len(row) if row else None for row in known],
            "worst": [max(row, default=None) for row in known],
        }
    return Curve("Re-emergence: likeness after every step", "people erased", "cosine", x, lines, limits)


def kept(found: Matrix) -> Curve:
    """Everybody else over the steps."""
    x = [float(k + 1) for k in range(len(found.rows))]
    return Curve(
        "Everybody else after every step", "step", "views verified", x, {"random people": found.kept}
    )


# ----------------------------------------------------------------------------------------------------------
# Drawing


def _figure(height: float, entries: int = 0) -> tuple[Figure, Axes]:
    """`height`: inches without the legend of so many entries. All plots are of one width and text size."""
    from matplotlib.figure import Figure

    rows = -(-entries // 2) if entries > 1 else 0
    figure = Figure(figsize=(WIDTH, height + 0.18 * rows), layout="constrained")
    axes = figure.add_subplot()
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=9.5, length=3)
    axes.xaxis.label.set(color=INK, fontsize=10)
    axes.yaxis.label.set(color=INK, fontsize=10)
    return figure, axes


def _scale(axes: Axes, found: Curve) -> None:
    """Logarithmic where the figures span more than two decades, a few outliers left out; whole steps."""
    values = sorted(v for line in found.lines.values() for v in line if v is not None)
    if values and values[0] > 0 and values[-1] > 100 * values[len(values) // 20]:
        axes.set_yscale("log")
    if all(float(x).is_integer() for x in found.x):
        axes.locator_params(axis="x", integer=True)


def _legend(figure: Figure) -> None:
    figure.legend(
        loc="outside upper left", ncols=2, frameon=False, fontsize=9.5, labelcolor=INK,
        borderaxespad=0, handlelength=2.0, columnspacing=1.0,
    )  # fmt: skip


def svg(figure: Figure, key: str, words: str) -> Markup:
    """The figure as an `<svg>` for the middle of a page: no prolog, dates, styles or sizes of its own."""
    import matplotlib

    file = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r"\1", text, count=1)
    text = re.sub(
        r'\sid="(?:figure|axes|patch|line2d|text|matplotlib\.axis|xtick|ytick|legend)_?\d*"', "", text
    )
    text = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', text)
    text = re.sub(r"url\(#", f"url(#{key}-", text)
    text = text.replace('xlink:href="#', f'href="#{key}-')
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;?\s*", "", text)
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    title = f'<title id="{key}-title">{escape(words)}</title>'
    text = text.replace("<svg", f'<svg role="img" aria-labelledby="{key}-title" class="plot"', 1)
    return Markup(text.replace(">", f">{title}", 1).strip())


def _clip(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"


def _in_words(found: Curve) -> str:
    parts = []
    for name, values in found.lines.items():
        known = [v for v in values if v is not None]
        if known:
            parts.append(f"{name} from {known[0]:.3g} to {known[-1]:.3g}, at most {max(known):.3g}")
    parts += [f"{name} at {value:.3g}" for name, value in found.limits.items()]
    return f"{found.title}. {found.y_label} over {found.x_label}: {'; '.join(parts)}."


def _table(found: Curve) -> Table:
    n = len(found.x)
    every = max(1, -(-n // SHOWN_ROWS))
    shown = sorted({*range(0, n, every), n - 1} if n else set())
    rows = [
        [f"{found.x[i]:g}", *("-" if v[i] is None else f"{v[i]:.3g}" for v in found.lines.values())]
        for i in shown
    ]
    return Table([found.x_label, *found.lines], rows)
