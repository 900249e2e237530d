"""What forms ask for: the actions of an operator, each in the audit log, and another reading of a queue."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..dead_letters import Chosen, Edit, Letter, Operation, Pace, Selection, target_of
from ..events import ConfigurationError, HoldfastError
from .page import Visit, number
from .pages import NO_WORKER, USUAL, archive_of, run_name

SHOWN = 50  # letters that a dry run names
MOST = 1_000  # letters that the handler is run on


async def replay(visit: Visit) -> Response:
    """Show what is about to be replayed, and with POST replay it."""
    if (elsewhere := _fixed(visit, "/replay")) is not None:
        return elsewhere
    fields = visit.fields
    selection = replace(visit.selection, limit=_limit(fields))
    to, pace = fields.get("to") or None, _pace(fields)
    if visit.is_asked or "dry_run" in fields:
        return _ask_first(visit, "replay.html", selection)
    _agreed(visit)
    return _begin(visit, visit.service.replay(visit.queue, selection, to=to, forced="forced" in fields), pace)


async def discard(visit: Visit) -> Response:
    """Show what is about to be archived and taken off the queue, and with POST do that."""
    if (elsewhere := _fixed(visit, "/discard")) is not None:
        return elsewhere
    if visit.is_asked:
        return _ask_first(visit, "discard.html", visit.selection)
    agreed = _agreed(visit)
    if visit.fields.get("count") != str(count := len(agreed.letters)):
        raise ConfigurationError(f"type the number of letters, {count}, to discard them")
    return _begin(visit, visit.service.discard(visit.queue, agreed))


async def edit(visit: Visit) -> Response:
    """Show a letter's body and headers to be changed, and with POST check them and replay them as a new event."""
    letter = visit.letter()
    try:
        body = letter.message.body.decode()
    except UnicodeDecodeError:
        raise ConfigurationError("the body is not text; use holdfast dead edit with a file") from None
    begin = partial(visit.service.edit, visit.queue, letter.key)
    return _edit(visit, "edit.html", {"body": body}, [letter], begin, letter=letter)


async def edit_each(visit: Visit) -> Response:
    """Show how the selected letters can be edited together, and with POST check that and replay them as new events."""
    if (elsewhere := _fixed(visit, "/edit")) is not None:
        return elsewhere
    index, selection = visit.index, visit.selection
    chosen = index.choose(selection)

    def begin(changed: Edit, *, to: str | None) -> Operation:
        return visit.service.edit_each(visit.queue, _agreed(visit), changed, to=to)

    form, shown = {"find": "", "put": ""}, {"count": len(chosen.letters), "digest": chosen.digest}
    return _edit(visit, "edits.html", form, index.letters(selection), begin, **shown)


def _edit(
    visit: Visit,
    template: str,
    form: dict[str, Any],
    letters: Iterable[Letter],
    begin: Callable[..., Operation],
    **shown: Any,
) -> Response:
    """Show the form of an edit, and with POST begin it. Where that fails the form is shown again, with the reason."""
    form |= {"headers": "", "to": ""}
    if visit.is_asked:
        return visit.show(template, error="", **form, **shown)
    form = {name: visit.fields.get(name, "").replace("\r\n", "\n") for name in form}
    body, to = form.get("body"), form["to"] or None
    try:
        text = None if body is None else body.encode()
        changed = Edit(text, _headers(form["headers"]), form.get("find", ""), form.get("put", ""))
        if text is None and not changed.headers and not changed.find:
            raise ConfigurationError("nothing is different")
        if visit.page.reader_of is not None and "unchecked" not in visit.fields:
            read = visit.page.reader_of(visit.queue, to)
            for letter in letters:
                read(letter, changed)
        return _begin(visit, begin(changed, to=to))
    except HoldfastError as error:
        return visit.show(template, 400, error=str(error), **form, **shown)


async def run(visit: Visit) -> Response:
    """Have the handler run on some of the letters, in a process of its own: its publishes are caught, its other effects
    are real."""
    queue, selection, service = visit.queue, visit.selection, visit.service
    if (rehearse := visit.page.rehearse) is None:
        raise HTTPException(404, NO_WORKER)
    if "understood" not in visit.fields:
        raise ConfigurationError("tick that you know what else the handler does")
    some = replace(selection, limit=min(_limit(visit.fields) or USUAL, MOST))
    chosen = urlencode(selection.pairs()) or "all"
    service.journal.log(service.by, "run", queue, f"the handler, on at most {some.limit} letter(s): {chosen}")
    visit.page.background.rehearse(run_name(queue), (queue, selection), lambda: rehearse(queue, some))
    return visit.back("/check")


async def restore(visit: Visit) -> Response:
    """Put the letters of an archive back into the queues they were taken off, or into another."""
    begun = await visit.service.restore(archive_of(visit), to=visit.fields.get("to", "").strip() or None)
    for operation in begun:
        visit.page.background.carry_out(operation, Pace())
    return visit.go(f"/operations/{begun[0].id}" if len(begun) == 1 else "/operations")


async def ask(visit: Visit) -> Response:
    """Pause, resume or cancel an operation."""
    asked, operation = visit.request.path_params["request"], visit.service.operation(visit.part("name"))
    if asked == "resume":
        return _begin(visit, operation, _pace(visit.fields))
    if asked not in ("pause", "cancel"):
        raise HTTPException(404, "an operation can be paused, resumed and cancelled")
    visit.service.ask(operation, asked)
    return visit.go(f"/operations/{operation.id}")


async def read(visit: Visit) -> Response:
    """Read the queue again. It stays as it is."""
    visit.page.background.read(visit.queue)
    return visit.back()


async def note(visit: Visit) -> Response:
    """Write a note on a group; an empty one takes it away."""
    fingerprint, text = visit.fields.get("fingerprint", "")[:64], visit.fields.get("text", "")[:2_000]
    visit.service.journal.write_note(visit.queue, fingerprint, text, who=visit.service.by)
    return visit.back()


def _ask_first(visit: Visit, template: str, selection: Selection) -> Response:
    """Show what would be done, and the form to have it done. With the fields of that form it is a dry run, which names
    letters and where they would go."""
    index, fields = visit.index, visit.fields
    meant = list(islice(index.letters(selection), SHOWN)) if fields else []
    target = target_of(meant[0], visit.queue, fields.get("to") or None) if meant else ""
    count, groups, digest = index.count(selection), index.groups(selection), index.choose(visit.selection).digest
    return visit.show(
        template, count=count, groups=groups, meant=meant, fields=fields, target=target, digest=digest,
    )  # fmt: skip


def _fixed(visit: Visit, below: str) -> Response | None:
    """Lead to the address without spans of time, which are others when the form is sent."""
    fixed = visit.selection.fixed()
    return replace(visit, selection=fixed).back(below) if visit.is_asked and fixed != visit.selection else None


def _agreed(visit: Visit) -> Chosen:
    """Return the letters that are selected. Raises `ConfigurationError` where they are not those that the form was
    shown with: the queue was read again meanwhile."""
    chosen = visit.index.choose(visit.selection)
    if visit.fields.get("digest") != chosen.digest:
        raise ConfigurationError(
            f"the letters have changed since they were shown: they are {len(chosen.letters):,} now; look at them again"
        )
    return chosen


def _begin(visit: Visit, operation: Operation, pace: Pace = Pace()) -> Response:  # noqa: B008 (frozen)
    visit.page.background.carry_out(operation, pace)
    return visit.go(f"/operations/{operation.id}")


def _pace(fields: Mapping[str, str]) -> Pace:
    rate, wait = _amount(fields, "rate", "letters a second"), _amount(fields, "wait", "seconds")
    pace = Pace(rate=rate, canary="at_once" not in fields, keep_going="keep_going" in fields)
    return pace if wait is None else replace(pace, wait=wait)


def _amount(fields: Mapping[str, str], name: str, what: str) -> float | None:
    """Read a number, which `Pace` judges; None where the field is empty."""
    text = fields.get(name, "").strip()
    try:
        return float(text) if text else None
    except ValueError:
        raise ConfigurationError(f"{name}={text[:40]!r} is not a number of {what}") from None


def _limit(fields: Mapping[str, str]) -> int | None:
    """Read how many letters it may be at most; None where the field is empty."""
    text = fields.get("limit", "").strip()
    if text and not number(text):
        raise ConfigurationError(f"limit={text[:40]!r} is not a whole number of letters, from 1 to 9999999")
    return number(text) or None


def _headers(text: str) -> dict[str, str | None]:
    """Read `name: value` on each line; `name:` alone takes the header away."""
    headers: dict[str, str | None] = {}
    for line in text.split("\n"):
        name, colon, value = line.partition(":")
        if line.strip() and not colon:
            raise ConfigurationError(f"{line[:60]!r} is not a header; write name: value")
        if name.strip():
            headers[name.strip()] = value.strip() or None
    return headers
