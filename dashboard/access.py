"""Who may see the page and who may act on it; what every answer and every form carries for that.

A session is a signed cookie that scripts cannot read and other sites cannot send. A form carries a token made of the
session (OWASP's signed double submit), and its request must come from our own origin.
"""

import hashlib
import hmac
import secrets
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Role: TypeAlias = Literal["viewer", "operator"]

COOKIE = "holdfast_session"
_LIFE = 12 * 3600.0  # seconds a session lasts
_TRIES, _WITHIN = 10, 60.0  # wrong tokens, in seconds, before no token is looked at
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
SAFE = ("GET", "HEAD")
_OPEN = ("/login", "/static/")

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who was let in."""

    name: str
    role: Role
    csrf: str

    @property
    def may_act(self) -> bool:
        return self.role == "operator"


class Access:
    """Tokens and what they allow. Without any, whoever reaches the page has `role`: for loopback alone."""

    def __init__(
        self, *, token: str | None = None, operator_token: str | None = None, role: Role = "viewer", host: str = ""
    ) -> None:
        tokens: dict[Role, str | None] = {"operator": operator_token, "viewer": token}
        self._roles: list[tuple[str, Role]] = [(known, allowed) for allowed, known in tokens.items() if known]
        self.role = role
        self._key = secrets.token_bytes(32)
        self._hosts = (*_LOOPBACK, host) if self.is_open else ()
        self._wrong: deque[float] = deque(maxlen=_TRIES)

    @property
    def is_open(self) -> bool:
        """Whether no token is asked for."""
        return not self._roles

    def admit(self, token: str) -> Role | None:
        """The role of a token; None for a wrong one, and for any after too many wrong ones."""
        now = time.monotonic()
        if len(self._wrong) == _TRIES and now - self._wrong[0] < _WITHIN:
            return None
        for known, role in self._roles:
            if hmac.compare_digest(known.encode(), token.encode("utf-8", "replace")):
                return role
        self._wrong.append(now)
        return None

    def session_of(self, request: Request) -> Session | None:
        """Whoever the cookie of a request names."""
        cookie = request.cookies.get(COOKIE, "")
        claim, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(self._sign(claim).encode(), signature.encode("utf-8", "replace")):
            return None
        name, role, expires = claim.split(".")
        if role not in ("viewer", "operator") or float(expires) < time.time():
            return None
        return Session(name, "operator" if role == "operator" else "viewer", self._sign(f"form {name}"))

    def welcome(self, response: Response, role: Role, *, secure: bool) -> None:
        """Give the answer a cookie of a new session."""
        claim = f"{secrets.token_hex(8)}.{role}.{int(time.time() + _LIFE)}"
        response.set_cookie(
            COOKIE, f"{claim}.{self._sign(claim)}", max_age=int(_LIFE), httponly=True, samesite="strict", secure=secure
        )

    def refuses(self, request: Request) -> str | None:
        """Why a request is not even looked at: a host name that is not ours, or a form from elsewhere."""
        host = (request.url.hostname or "").lower()
        if self._hosts and host not in self._hosts:
            return "this page is served for this machine alone"
        if request.method in SAFE:
            return None
        origin = request.headers.get("origin")
        own = f"{request.url.scheme}://{request.headers.get('host', '')}"
        if origin is None:
            origin = "/".join(request.headers.get("referer", "").split("/")[:3])
        return None if origin == own else "the form comes from another site"

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _here(request: Request) -> str:
    """Where a request went to, on this host: `//name` would be another one."""
    return "/" + str(request.url.replace(scheme="", netloc="")).lstrip("/")


class Gate:
    """The middleware that lets requests in, with their session, and puts our headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = Headers(raw=message["headers"])
                extra = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k not in known]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self._answer(Request(scope, receive), guarded)

    async def _answer(self, request: Request, send: Send) -> None:
        access, scope, receive = self._access, request.scope, request.receive
        if (why := access.refuses(request)) is not None:
            await Response(why + "\n", 403, media_type="text/plain")(scope, receive, send)
            return
        session = access.session_of(request)
        secure = request.url.scheme == "https"
        if session is None and not request.url.path.startswith(_OPEN):
            if access.is_open and request.method in SAFE:
                answer: Response = RedirectResponse(_here(request), 303)
                access.welcome(answer, access.role, secure=secure)
            else:
                answer = RedirectResponse("/login", 303)
            await answer(scope, receive, send)
            return
        scope["session"] = session
        await self._app(scope, receive, send)
