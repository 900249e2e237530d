"""The dead-letter page in a real browser, behind a proxy that speaks TLS, below a path."""

from pathlib import Path

from browsing import a_served_page
from front import a_public_url, tls_front
from playwright.async_api import Browser, expect
from redises import certificates

from holdfast.dashboard import Access
from holdfast.dead_letters import DeadLetters

TOKEN = "look-but-do-not-touch"


async def test_somebody_logs_in_and_out_through_a_proxy(browser: Browser, desk: DeadLetters, tmp_path: Path) -> None:
    certificates(tmp_path)
    public, port = a_public_url("/tools/dead")
    async with (
        a_served_page(desk, Access(operator_token=TOKEN, public_url=public), public) as behind,
        tls_front(tmp_path, port, behind, path="/tools/dead", strips=True),
        await browser.new_context(ignore_https_errors=True) as context,
    ):
        page = await context.new_page()
        await page.goto(f"{public}/")
        await page.get_by_label("Token").fill(TOKEN)
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_role("heading", name="Dead letters")).to_be_visible()
        [cookie] = await context.cookies()
        await page.get_by_role("link", name="Audit log").click()
        await expect(page.get_by_role("heading", name="Audit log")).to_be_visible()
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_label("Token")).to_be_visible()

    assert (cookie["secure"], cookie["path"]) == (True, "/tools/dead")
