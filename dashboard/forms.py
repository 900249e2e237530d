"""Forms: read, bounded, and taken from this page alone."""

import hmac
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

from .access import Session

LONGEST = 4 << 20
"""Bytes of a form: an edited body fits, a flood does not."""


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of a form. Raises `HTTPException` for one that is too long."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > LONGEST:
            raise HTTPException(413, f"the form is longer than {LONGEST:,} bytes")
    try:
        return dict(parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        raise HTTPException(400, "the form cannot be read") from None


async def operators_fields(request: Request) -> tuple[Session, dict[str, str]]:
    """The fields of a form that only an operator may send, with the token of this session in it."""
    session: Session | None = request.scope.get("session")
    if session is None or not session.may_act:
        raise HTTPException(403, "only an operator may do that: holdfast dashboard --operator, or the operator's token")
    fields = await fields_of(request)
    if not hmac.compare_digest(fields.get("csrf", "").encode(), session.csrf.encode()):
        raise HTTPException(403, "this form is not of this session; go back, reload the page, and try again")
    return session, fields
