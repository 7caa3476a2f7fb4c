"""stdout carries data, stderr the rest. Errors end here: a table for people, an object for machines."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from guide_hub.errors import GuideHubError, Problem
from guide_hub.interrupt import Stopped
from guide_hub.report import Report, problem_dict

if TYPE_CHECKING:
    from rich.console import Console

    from guide_hub.sequence import Progress

DEBUG = "GUIDE_HUB_DEBUG"


def stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def progress(quiet: bool) -> Progress:
    """Bars on a terminal, lines in a log, warnings alone when quiet."""
    from guide_hub.progress import Bars, Lines, Warnings

    console = stderr()
    if quiet:
        return Warnings(console)
    return Bars(console) if console.is_terminal else Lines(console)


def write_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def explain(error: BaseException, as_json: bool, resumable: bool = False) -> int:
    """Says what went wrong and returns the exit code. `resumable`: the command keeps its progress."""
    report = getattr(error, "report", None) or Report(status="error")
    if isinstance(error, GuideHubError):
        problems, code = error.problems, error.exit_code
    elif isinstance(error, click.ClickException):
        problems, code = [Problem(error.format_message(), "see guide-hub --help")], 2
    elif isinstance(error, (Stopped, KeyboardInterrupt, click.Abort)):
        code = error.exit_code if isinstance(error, Stopped) else 130
        remedy = getattr(error, "remedy", None)
        if remedy is None and resumable:
            remedy = "the same command goes on from the last step"
        problems = [Problem("stopped", remedy or "")]
    else:
        problems = [
            Problem(f"unexpected {type(error).__name__}", f"set {DEBUG}=1 for the traceback, and report it")
        ]
        code = 1
        if os.environ.get(DEBUG):
            traceback.print_exception(error, file=sys.stderr)
    if as_json:
        report.errors = [problem_dict(p) for p in problems]
        write_json(report.to_dict())
    else:
        figures(report)
    for problem in problems:
        click.echo(f"{problem.place or 'guide-hub'}: {problem.message}", err=True)
        if problem.remedy:
            click.echo(f"  -> {problem.remedy}", err=True)
    return code


def warn(problems: list[Problem]) -> None:
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)


def subject_lines(plan: Mapping[str, Any]) -> Iterator[str]:
    """A plan for people: one line a subject."""
    for key, value in plan.items():
        text = "-" if value is None else value
        if isinstance(value, bool):
            text = "yes" if value else "no"
        yield f"{key.replace('_', ' ')}: {text}"


def figures(report: Report) -> None:
    """The outcome, as far as there is one, as a table that fits 80 columns, on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if report.inversions and not report.erasures:
        for i in report.inversions:
            verdict = "shown" if i.cosine >= i.threshold else "not shown"
            console.print(
                f"{report.name(i)}: {verdict} (cosine {i.cosine:.2f}, threshold {i.threshold:.2f}, "
                f"{i.fitted} of {i.photos} photos fitted)"
            )
    if report.erasures:
        table = Table(box=None, pad_edge=False)
        for name in ("identity", "before", "now", "line", "views", "held-out", "result"):
            table.add_column(name, justify="left" if name in ("identity", "result") else "right")
        for e in report.erasures:
            others = "-" if e.verified_others_after is None else f"{e.verified_others_after:.0%}"
            table.add_row(
                report.name(e), f"{e.id.before:.2f}", f"{e.now:.2f}", f"{e.id.threshold:.2f}",
                f"{e.verified_after:.0%}", others, e.result,
            )  # fmt: skip
        console.print(table)
        for e in report.erasures:
            if e.attacks:
                words = {True: "passed", False: "FAILED", None: "-"}
                told = ", ".join(f"{a['attack']} {words[a['passed']]}" for a in e.attacks)
                console.print(f"attacks on {report.name(e)}: {told}", soft_wrap=True)
    for old in report.earlier:
        console.print(
            f"earlier {old.request_id}.{old.identity_id}: now {old.now:.2f}, line {old.threshold:.2f}, "
            f"views {old.verified_now:.0%}, {old.result}",
            soft_wrap=True,
        )
    if report.retained:
        console.print(
            f"others: still themselves in {report.retained.verified:.0%} of the views of "
            f"{report.retained.n} random people"
        )
    if report.reemergence:
        r = report.reemergence
        console.print(
            f"coming back: similarity at most {r.rise:+.3f} since the own erasure, over {r.n} people",
            soft_wrap=True,
        )
    if report.collateral and report.collateral.expected >= 0.01:
        c = report.collateral
        console.print(
            f"collateral: {c.n} erasures touch about {c.expected:.1%} of random faces; "
            f"{c.changed.value:.1%} of {c.changed.n} are no more themselves",
            soft_wrap=True,
        )
    if report.output:
        console.print(f"written to {report.output}", soft_wrap=True)
    if report.pushed:
        console.print(f"pushed: {report.pushed['pr_url'] or report.pushed['commit']}", soft_wrap=True)
