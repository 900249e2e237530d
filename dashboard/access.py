"""Who may see the page and who may act on it; what every answer and every form carries for that.

A session is a signed cookie that scripts cannot read and other sites cannot send. A form carries a token made of the
session (OWASP's signed double submit), and its request must come from our own origin.
"""

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp

Role: TypeAlias = Literal["viewer", "operator"]

COOKIE = "holdfast_session"
_LIFE = 12 * 3600.0  # seconds a session lasts
_TRIES, _WITHIN = 10, 60.0  # wrong tokens from one address, in seconds, before no token of its is looked at
_ADDRESSES = 1_000  # whose wrong tokens are remembered
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
    """Tokens and what they allow. Without any, whoever reaches the page has `role`: for loopback alone. `public_url` is
    the address by which browsers reach the page, where a proxy stands before it."""

    def __init__(
        self, *, token: str | None = None, operator_token: str | None = None, role: Role = "viewer", host: str = "",
        public_url: str = "",
    ) -> None:  # fmt: skip
        tokens: dict[Role, str | None] = {"operator": operator_token, "viewer": token}
        self._roles: list[tuple[str, Role]] = [(known, allowed) for allowed, known in tokens.items() if known]
        self.role = role
        self._key = secrets.token_bytes(32)
        public = urlsplit(public_url)
        self.root = public.path.rstrip("/")
        self._origin = f"{public.scheme}://{public.netloc}" if public_url else None
        self._is_secure = public.scheme == "https"
        self._hosts = (*_LOOPBACK, host, public.hostname) if self.is_open else ()
        self._wrong: dict[str, list[float]] = {}

    @property
    def is_open(self) -> bool:
        """Whether no token is asked for."""
        return not self._roles

    def admit(self, token: str, address: str) -> Role | None:
        """Return the role of a token; None for a wrong one, and for any from an address that sent too many wrong ones.
        What one address sends keeps no other out."""
        now = time.monotonic()
        wrong = [at for at in self._wrong.pop(address, ()) if now - at < _WITHIN]
        given = token.encode("utf-8", "replace")
        roles = [role for known, role in self._roles if hmac.compare_digest(known.encode(), given)]
        is_heeded = len(wrong) < _TRIES
        if is_heeded and not roles:
            wrong.append(now)
        self._wrong[address] = wrong
        if len(self._wrong) > _ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
        return roles[0] if is_heeded and roles else None

    def session_of(self, request: Request) -> Session | None:
        """Whoever the cookie of a request names."""
        claim, _, signature = request.cookies.get(COOKIE, "").rpartition(".")
        if not hmac.compare_digest(self._sign(claim).encode(), signature.encode("utf-8", "replace")):
            return None
        name, role, expires = claim.split(".")
        if float(expires) < time.time():
            return None
        return Session(name, "operator" if role == "operator" else "viewer", self._sign(f"form {name}"))

    def welcome(self, request: Request, response: Response, role: Role) -> Response:
        """Give the answer a cookie of a new session."""
        claim = f"{secrets.token_hex(8)}.{role}.{int(time.time() + _LIFE)}"
        response.set_cookie(
            COOKIE, f"{claim}.{self._sign(claim)}", max_age=int(_LIFE), path=self.root or "/", httponly=True,
            samesite="strict", secure=request.url.scheme == "https" or self._is_secure,
        )  # fmt: skip
        return response

    def dismiss(self, response: Response) -> Response:
        """Take the cookie of the session away."""
        response.delete_cookie(COOKIE, path=self.root or "/")
        return response

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
        if origin in (own, self._origin):
            return None
        return "the form comes from another site (behind a proxy, HOLDFAST_DASHBOARD__PUBLIC_URL says which this is)"

    def below_root(self, path: str) -> str:
        """Return a path as it is below the public address, whether or not a proxy has taken that away from it."""
        whole = f"{path}/" if path == self.root else path
        return whole if whole.startswith(f"{self.root}/") else self.root + path

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _here(request: Request) -> str:
    """Where a request went to, on this host: `//name` would be another one."""
    return "/" + str(request.url.replace(scheme="", netloc="")).lstrip("/")


class Gate(BaseHTTPMiddleware):
    """The middleware that lets requests in, with their session, and puts our headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        super().__init__(app)
        self._access = access

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        path = self._access.below_root(request.scope["path"])
        request.scope.update(path=path, root_path=self._access.root)
        answer = await self._answer(request, call_next)
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    async def _answer(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        access = self._access
        if (why := access.refuses(request)) is not None:
            return Response(why + "\n", 403, media_type="text/plain")
        request.scope["session"] = session = access.session_of(request)
        if session is not None or request.url.path.removeprefix(access.root).startswith(_OPEN):
            return await call_next(request)
        if access.is_open and request.method in SAFE:
            return access.welcome(request, RedirectResponse(_here(request), 303), access.role)
        return RedirectResponse(f"{access.root}/login", 303)
