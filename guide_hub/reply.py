"""`reply-REQUEST.md`: what a maintainer can answer the requester with. Private, like the private report.

Plain words, opaque ids and figures; no names, and nothing that the record does not say as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from guide_hub.record import Record, erasures_of
from guide_hub.report import ErasureReport, Report
from guide_hub.request import Request

_RIGHTS = {
    "gdpr": "If this answer does not content you, you can complain to your data protection authority or go "
    "to court (Articles 77 and 79 GDPR).",
    "ccpa": "If this answer does not content you, you can complain to the California Privacy Protection "
    "Agency or the Attorney General.",
}
_NOT_PROMISED = """\
* This is suppression of a likeness, measured as above. It is no proof that pictures of you were removed from
  the data that the model learned from, nor that they ever were in it: such a model can produce a likeness of
  people whom it has never seen.
* Copies of the earlier model that others have downloaded still show what they showed. {history}
* Whoever has the earlier model, or searches this one at length with a photo of you in hand, may still find a
  likeness. That search was not tested.
* If somebody trains the model further, a likeness may come back."""
_HISTORY = {
    "reachable": "Earlier revisions can still be downloaded from the repository, until they are purged.",
    "purged": "Earlier revisions were removed from the repository.",
    "unknown": "Whether earlier revisions can still be downloaded was not checked.",
}


def place(report: Path | None, state: Path, request_id: str) -> Path:
    """Where a draft lies: in the private report's folder, else among the state folder's replies."""
    return (report or state / "replies") / f"reply-{request_id}.md"


def render(report: Report, request: Request, record: Record | None = None) -> str:
    """The answer's text, in Markdown.

    Args:
        report: of the run; its `status` decides what the answer says.
        request: the one that is answered, of a run's several. Nothing is said of the others.
        record: the model's, where there is one; for `already_erased` the figures are in it alone.
    """
    rows = [_row(e) for e in report.erasures if e.request_id == request.request_id]
    unknown = [i for i in report.inversions if i.request_id == request.request_id and not i.recognised]
    parts = [_HEAD.format(request.request_id, request.received.isoformat(), request.expected_by.isoformat())]
    if report.status == "erased":
        parts += [_DONE, _table(rows), _others(report), *_where(report)]
    elif report.status == "already_erased":
        if report.pushed:
            parts += [_PROPOSED, *_where(report)]
        else:
            parts += [_ALREADY, _table(_recorded(record, request.request_id))]
    elif report.status == "no_match" and unknown:
        parts += [_NO_MATCH, *(_UNKNOWN.format(i.identity_id, i.cosine, i.threshold) for i in unknown)]
    elif report.status == "failed":
        parts += [_FAILED, _table(rows), _others(report)]
    else:
        parts += [_OPEN]
    if report.status in ("erased", "already_erased"):
        parts += ["## What this does not promise", _NOT_PROMISED.format(history=_history(report, record))]
    parts += ["## What you can do", _RIGHTS.get(request.regime, ""), _QUESTIONS.format(request.request_id)]
    return "\n\n".join(part for part in parts if part) + "\n"


_HEAD = """\
# Answer to request {}

*A draft by guide-hub: check it, add what your law asks for, and send it from your ticket system. It is not
for the public.*

Received on {}, to be answered by {}."""
_DONE = """\
## What was done

A version of the model was made that no longer shows the people of your request. A face recogniser that took
no part in this compared the photos that you gave with the model's pictures, before and after. 1 is the same
picture and about 0 a stranger; from the line on, two pictures are taken for one person."""
_ALREADY = """\
## What was done

The model's record says that this request was carried out before. Nothing had to be done now."""
_PROPOSED = """\
## What was done

A version of the model that no longer shows the people of your request was made before. Nothing had to be done
now."""
_NO_MATCH = """\
## What was found

The model was searched for the people of your request. It does not show those named here: its closest picture
is not taken for the person in the photos. Nothing was erased, since that would have changed somebody else's
likeness instead. A sharper or more frontal photo may give another answer."""
_UNKNOWN = "* {}: likeness {:.2f}, and from {:.2f} on two pictures are taken for one person."
_FAILED = """\
## What was tried

The model was changed to no longer show the people of your request, but the measured result did not meet the
target. The changed model was not published."""
_OPEN = """\
## Where this stands

The request has not been carried out yet."""
_QUESTIONS = """\
For questions quote the request id {}. Please post no names or photos in the model's public discussions."""


def _row(e: ErasureReport) -> list[str]:
    others = f"{e.id_others.before:.2f} -> {e.id_others.after:.2f}" if e.id_others else "-"
    figures = [f"{e.id.before:.2f}", f"{e.now:.2f}", f"{e.id.threshold:.2f}", f"{e.verified_after:.0%}"]
    return [e.identity_id, *figures, others]


def _recorded(record: Record | None, request_id: str) -> Iterable[list[str]]:
    for e in erasures_of(record, request_id) if record is not None else []:
        m, others = e["metrics"]["id"], e["metrics"].get("idOthers")
        now = m["after"] if m["now"] is None else m["now"]
        views = e["metrics"].get("verifiedAfter")
        yield [
            e["identityId"], f"{m['before']:.2f}", f"{now:.2f}", f"{m['threshold']:.2f}",
            "-" if views is None else f"{views:.0%}",
            f"{others['before']:.2f} -> {others['after']:.2f}" if others else "-",
        ]  # fmt: skip


def _table(rows: Iterable[list[str]]) -> str:
    head = ["person", "before", "after", "line", "views still taken for them", "photos not used to erase"]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) if len(lines) > 2 else ""


def _others(report: Report) -> str:
    if report.retained is None:
        return ""
    share = f"in {report.retained.verified:.0%} of the views of {report.retained.n} random people"
    return f"Other people had to stay as they were: {share} they are still taken for themselves."


def _where(report: Report) -> list[str]:
    if not report.pushed:
        return ["It is not published yet."]
    repo, pull = report.pushed["repo"], report.pushed.get("pr_url")
    if pull:
        told = [f"It was proposed at {pull}, and takes effect when that is merged."]
    else:
        told = [f"It was published as {repo}, commit {report.pushed['commit']}."]
    base = _base(report)
    if base is not None and base != repo:
        told += [f"The model that it was made from, {base}, is unchanged: it shows what it showed."]
    return told


def _base(report: Report) -> str | None:
    """The Hub id of the model that was changed, None for others."""
    uri = (report.base or {}).get("repo") or ""
    return uri.removeprefix("hf://") if uri.startswith("hf://") else None


def _history(report: Report, record: Record | None) -> str:
    if report.status == "already_erased" and record is not None:
        return _HISTORY[record["predicate"]["priorRevisions"]]
    changed_in_place = report.pushed and report.pushed["repo"] == _base(report)
    return _HISTORY["reachable"] if changed_in_place else ""
