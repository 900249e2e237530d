"""The dead-letter page behind a proxy: another address than its own, TLS before it, a path of its own."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from browsing import a_served_page, a_visitor
from front import a_public_url, tls_front
from morgue import a_desk
from redises import certificates

from holdfast import ConfigurationError, Settings
from holdfast.config import DashboardSettings
from holdfast.dashboard import Access, listen
from holdfast.dead_letters import DeadLetters

TOKEN = "look-but-do-not-touch"


@pytest.fixture
async def desk(settings: Settings, tmp_path: Path) -> AsyncIterator[DeadLetters]:
    async with a_desk(settings, tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("path", ["", "/tools/dead"])
@pytest.mark.parametrize("strips", [True, False])
async def test_somebody_logs_in_through_a_proxy_with_tls_below_a_path(
    desk: DeadLetters, tmp_path: Path, path: str, strips: bool
) -> None:
    certificates(tmp_path)
    public, port = a_public_url(path)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    access = Access(operator_token=TOKEN, public_url=public)
    async with (
        a_served_page(desk, access, public) as behind,
        tls_front(tmp_path, port, behind, path=path, strips=strips),
        httpx.AsyncClient(verify=trusting, follow_redirects=True) as browser,
    ):
        door = await browser.get(public if path and not strips else f"{public}/")
        origin = {"origin": f"https://localhost:{port}"}
        entered = await browser.post(f"{public}/login", data={"token": TOKEN}, headers=origin)
        style = await browser.get(f"{public}/static/style.css")
        audit = await browser.get(f"{public}/audit")
        left = await browser.post(f"{public}/logout", headers=origin)
        elsewhere = await browser.post(f"{public}/login", data={"token": TOKEN}, headers={"origin": "https://evil"})

    cookie = entered.history[0].headers["set-cookie"]
    assert str(door.url) == f"{public}/login" and f'action="{path}/login"' in door.text
    assert (entered.status_code, str(entered.url)) == (200, f"{public}/")
    assert "Secure" in cookie and f"Path={path or '/'};" in cookie
    assert (style.status_code, audit.status_code, elsewhere.status_code) == (200, 200, 403)
    assert f'href="{path}/operations"' in audit.text and str(left.url) == f"{public}/login"


async def test_wrong_tokens_from_one_address_keep_no_other_out(desk: DeadLetters) -> None:
    access = Access(token=TOKEN)
    async with a_visitor(desk, access) as guesser, a_visitor(desk, access, "192.0.2.7") as other:
        for _ in range(10):
            await guesser.post("/login", token="guess")
        answers = [await one.post("/login", token=TOKEN) for one in (guesser, other)]

    assert [answer.status_code for answer in answers] == [403, 303]
    assert [act.detail for act in desk.journal.acts()] == ["127.0.0.1"] * 11


def test_a_public_address_wants_a_token() -> None:
    with pytest.raises(ConfigurationError, match=r"PUBLIC_URL=.* is reached from other machines"):
        listen(DashboardSettings(port=0, public_url="https://tools.example/dead"))
