"""From a page to one HTML file that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from guide_hub.html.page import Likeness, PrivatePage, PublicPage, Summary, broken_first, grid
from guide_hub.private import write as write_private
from guide_hub.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
PRIVATE, PUBLIC = "report.html", "report-public.html"


def render(page: PrivatePage | PublicPage) -> str:
    """The whole file's text."""
    name = "private" if isinstance(page, PrivatePage) else "public"
    people, rows = grid(page.attacks)
    return (
        _environment()
        .get_template(f"{name}.html.j2")
        .render(
            page=page,
            sections=_sections(page),
            attack_people=people,
            attack_rows=rows,
            version=__version__,
            style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        )
    )


def write(folder: Path, private: PrivatePage | None, public: PublicPage) -> None:
    """Both editions into a private folder, each whole or not at all, for the owner alone."""
    for name, page in ((PRIVATE, private), (PUBLIC, public)):
        if page is not None:
            write_private(folder / name, render(page).encode())


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        broken_first=broken_first,
        cosine=_cosine,
        number=_number,
        share=_share,
        plain=_plain,
        heat=_heat,
        said=_said,
    )
    return environment


def _sections(page: Summary) -> list[tuple[str, str]]:
    """Anchors and names of the sections that the page has."""
    found = [("verdict", "Verdict")]
    found += [("figures", "Figures")] if page.people or page.charts else []
    found += [("attacks", "Attacks")] if page.attacks else []
    if isinstance(page, PrivatePage):
        found += [(f"person-{k + 1}", p.name) for k, p in enumerate(page.portraits)]
    found += [("sequence", "One after another")] if page.matrix else []
    found += [("checks", "Checks")] if page.checks else []
    found += [("others", "Everybody else")] if page.others else []
    return [*found, ("repeat", "Repeat"), ("limits", "Limits")]


# ----------------------------------------------------------------------------------------------------------
# Filters


def _number(value: float | int | bool | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}" if value else "0"


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"  # no -0.00


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _heat(value: float | None) -> str:
    """A cosine as the share of the hot colour: 0 where it is negative or unknown."""
    return f"{min(max(value or 0.0, 0.0), 1.0):.2f}"


def _said(p: Likeness) -> str:
    """One person's figures as a sentence."""
    before = "" if p.before is None else f"{p.before:.2f} before, "
    text = f"Mean likeness {before}{p.now:.2f} now; the threshold is {p.threshold:.2f}."
    if p.views is not None:
        text += f" Still verified: {_share(p.views)} of the views"
        text += "." if p.views_others is None else f", {_share(p.views_others)} of those of held-out photos."
    return text + (" Erased by an earlier run." if p.earlier else "")
