"""guide-hub evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from guide_hub.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from guide_hub.evaluate import Evaluation
    from guide_hub.evaluation.interval import Figure

ANY_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("evaluate")
@click.argument("repo")
@click.option("--revision", help="Branch, tag or commit of the erased model.")
@click.option("--base", metavar="REPO", help="What it was made from; default: what its record names.")
@click.option("--request", type=ANY_FILE, help="The takedown YAML; without it there are no ID figures.")
@click.option("--recipe", help="Recipe name or file; default: the erased model's own.")
@click.option(
    "--features", metavar="NAME[:PATH]", help="Extractor; default: the one that fits the model. See below."
)
@click.option("--real", type=ANY_FILE, help="Features [N, F] of real pictures, for dFID_real.")
@click.option(
    "--samples", type=click.IntRange(4, 1_000_000), help="Pictures a side; 5000 with inception, else 1000."
)
@options.seed
@options.device
@options.as_json
@options.quiet
def command(repo: str, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Measure an erased model as GUIDE's paper does, against the model that it was made from.

    ID compares each model's pictures at the person's latent, 11 views each, and then the real photo with the
    erased model's. ID_others is of the other photos' latents, ID_avg of all. Low is erased.

    FID_pre and KID compare random pictures of the two models at the same latents, with other noise and ray
    jitter as the paper does, and with the same. Their floors are the base against itself with other noise,
    and at other latents. Low is unharmed.

    The extractor inception gives FID; heads-pooled, for the built-in model, gives a distance of the same
    form that is no FID.
    """
    from guide_hub.cli import output
    from guide_hub.evaluate import evaluate

    found = evaluate(repo, progress=output.progress(quiet), **settings)
    if as_json:
        output.write_json(found.to_dict())
    else:
        show(found)


def show(found: Evaluation) -> None:
    """The figures as tables that fit 80 columns, on stdout."""
    from rich.console import Console

    console = Console(highlight=False)
    if found.mean is not None:
        table = _table("cosine", "ID", "ID_others", "ID_avg")
        rows = [(i.identity_id, i.figures) for i in found.identities]
        rows += [("mean", found.mean)] if len(rows) > 1 else []
        for name, figures in rows:
            table.add_row(name)
            for label, kind in (("before - after", "render"), ("photo - before", "photo_before"),
                                ("photo - after", "photo")):  # fmt: skip
                ids = getattr(figures, kind)
                table.add_row(f"  {label}", *(_text(f) for f in (ids.id, ids.others, ids.avg)))
        console.print(table)
    console.print(
        f"judge: {found.judge.name}; strangers reach {found.judge.threshold:.2f} at a rate of "
        f"{found.judge.far:g}\n"
    )
    table = _table("drift", "value", "95 % interval")
    for label, figure, digits in _drift(found):
        table.add_row(label, f"{figure['value']:.{digits}f}", _interval(figure, digits))
    console.print(table)
    drift = found.drift.pre
    console.print(f"{drift.n:,} pictures a side, features: {drift.extractor}, noise: {found.drift.noise}\n")
    kept = found.retained
    console.print(
        f"others: {kept.verified.value:.1%} of views of {kept.verified.n} random people still themselves, "
        f"cosine {kept.cosine.value:.3f}, {kept.network} {kept.perceptual.value:.4f}"
    )


def _drift(found: Evaluation) -> list[tuple[str, dict[str, Any], int]]:
    drift = found.drift.to_dict()
    name = "FID" if drift["is_fid"] else "Frechet"
    rows = []
    for label, which, digits in ((f"{name}_pre", "fid", 3), ("KID", "kid", 5)):
        rows += [
            (label, drift["fid_pre" if which == "fid" else "kid"], digits),
            ("  with the same noise", drift["same_noise"][which], digits),
            ("  floor: noise", drift["floors"]["noise"][which], digits),
            ("  floor: other latents", drift["floors"]["sampling"][which], digits),
        ]
    return rows + ([(f"d{name}_real", drift["dfid_real"], 3)] if drift["dfid_real"] else [])


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for n, name in enumerate(columns):
        table.add_column(name, justify="right" if n else "left", overflow="fold")
    return table


def _text(figure: Figure | None) -> str:
    return "-" if figure is None else f"{figure.value:.3f}"


def _interval(figure: dict[str, Any], digits: int) -> str:
    if figure["low"] is None:
        return "-"
    return f"{figure['low']:.{digits}f} .. {figure['high']:.{digits}f}"
