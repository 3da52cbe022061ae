"""The page of an audit in a real browser: what is seen, filtered and printed, and what it does not do."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.audits import LIKE_OURS, SEARCH, furnish
from tests.support.browser import Page, browsing, find_browser
from tests.support.scene import PROJECT, TARGET, Scene
from worker.commands.audit.page import page_pieces
from worker.commands.audit.report import Audit

HOSTILE = "</script><img src=https://evil.example/x onerror=\"document.title='taken'\">\u202e\x1b[2J"
CARD = f"[data-ns={TARGET.namespace}].card"
SCREENSHOTS = os.environ.get("SCREENSHOTS")
"""A folder that keeps what the browser shows, for people to look at."""


@pytest.fixture(scope="module")
def found() -> Audit:
    """An audit with a namespace more, a deleted account, and names that somebody chose to do harm."""
    find_browser()
    scene = Scene()
    furnish(scene)
    scene.openai.delete_account(PROJECT, scene.named()["id"])
    scene.openai.add_account(PROJECT, HOSTILE)
    scene.advance(minutes=30)
    return scene.audit(unused=timedelta(minutes=20), since=timedelta(days=1))


@pytest.fixture
async def page(found: Audit, tmp_path: Path) -> AsyncIterator[Page]:
    file = tmp_path / "audit.html"
    file.write_text("".join(page_pieces(found)))
    async with browsing(tmp_path / "profile") as page:
        await page.open(file)
        yield page


async def keep(page: Page, name: str) -> None:
    if SCREENSHOTS:
        (Path(SCREENSHOTS) / f"{name}.png").write_bytes(await page.shoot())


async def test_the_page_asks_for_nothing_and_complains_of_nothing(page: Page) -> None:
    """But for itself: no script, font or picture from elsewhere, whatever names of accounts say."""
    await keep(page, "whole")
    assert [url.partition(":")[0] for url in page.asked] == ["file"]
    assert page.said == []
    assert await page.value("document.images.length + document.querySelectorAll('link, iframe, [src]').length") == 0


async def test_a_hostile_name_is_text(page: Page) -> None:
    """It neither ends the script nor runs one, and it turns no line around."""
    assert (await page.value("document.title")).startswith("OpenAI keys: audit of ")
    shown = [text for text in await page.texts("#keys td") if "evil.example" in text]
    assert shown == [HOSTILE.replace("\u202e", "?").replace("\x1b", "?")]


async def test_the_page_runs_no_script_but_its_own(page: Page) -> None:
    """Even one that got into it: its policy says so."""
    await page.value(
        "(() => { const s = document.createElement('script'); s.textContent = 'document.title = \"taken\"';"
        " document.body.append(s); })()"
    )
    assert await page.value("document.title") != "taken"
    assert any("Content Security Policy" in text for text in page.said)


async def test_everything_is_shown_at_first(page: Page, found: Audit) -> None:
    """Every key has its row, every target its picture, every finding its line."""
    assert len(await page.texts("#keys tr[data-ns]")) == len(found.lines)
    assert len(await page.texts(".card")) == len(found.entries) == 2
    assert len(await page.texts("#findings tr[data-ns]")) == len(list(found.findings)) > 0
    assert await page.texts("#keys .count") == [str(len(found.lines))]


async def test_a_namespace_hides_the_others(page: Page, found: Audit) -> None:
    """In every section, and the counts follow."""
    await page.choose("#namespace", SEARCH)
    await keep(page, "namespace")
    assert [text.split()[0] for text in await page.texts(".card h3")] == [f"{SEARCH}/{TARGET.name}"]
    mine = sum(item.namespace == SEARCH for item in found.lines)
    assert await page.texts("#keys .count") == [f"{mine} of {len(found.lines)}"]
    assert len(await page.texts("#keys tr[data-ns]")) == mine
    assert not any(TARGET.namespace + "/" in text for text in await page.texts("[data-ns]"))
    await page.choose("#namespace", "*")
    assert len(await page.texts("#keys tr[data-ns]")) == len(found.lines)


async def test_what_belongs_to_no_target_can_be_asked_for(page: Page) -> None:
    await page.choose("#namespace", "")
    assert await page.texts(".card") == []
    assert any(LIKE_OURS in text for text in await page.texts("#keys tr[data-ns]"))


async def test_a_finding_hides_what_does_not_have_it(page: Page) -> None:
    """And the headings of the other findings."""
    await page.choose("#finding", "Forgotten")
    await keep(page, "finding")
    assert [LIKE_OURS in text for text in await page.texts("#keys tr[data-ns]")] == [True]
    assert await page.texts("#findings .kind") == ["Forgotten"]
    await page.choose("#namespace", SEARCH)
    assert await page.texts("#keys tr[data-ns]") == []


async def test_a_bar_lies_where_its_time_is(page: Page) -> None:
    """The held account: current, superseded and held follow each other up to now; the deleted one ends earlier."""
    lane = await page.box(f"{CARD} .lane svg")
    current = await page.box(f"{CARD} .lane svg .current")
    superseded = await page.box(f"{CARD} .lane svg .superseded")
    held = await page.box(f"{CARD} .lane svg .held")
    assert current["right"] == pytest.approx(superseded["left"], abs=1)
    assert superseded["right"] == pytest.approx(held["left"], abs=1)
    assert held["right"] == pytest.approx(lane["right"], abs=1)
    # An hour as the current account, of two hours and 25 minutes in all.
    assert current["width"] / lane["width"] == pytest.approx(60 / 145, abs=0.02)
    gone = await page.box(f"{CARD} svg .gone")
    assert gone["right"] < lane["right"] - lane["width"] / 10


async def test_who_holds_a_key_and_who_deleted_it_stand_beside_it(page: Page) -> None:
    notes = await page.texts(f"{CARD} .lane > span:last-child")
    assert any("held (1: my-app/app)" in text for text in notes)
    assert any("deleted by human@example.com" in text for text in notes)


async def test_it_prints_on_paper(page: Page) -> None:
    """Without the filters, and with what they leave: a PDF of a few pages."""
    await page.send("Emulation.setEmulatedMedia", media="print")
    assert await page.texts("#filters") == []
    assert len(await page.texts(".card")) == 2
    assert await page.value("getComputedStyle(document.querySelector('.card')).breakInside") == "avoid"
    printed = await page.print()
    if SCREENSHOTS:
        (Path(SCREENSHOTS) / "printed.pdf").write_bytes(printed)
    assert printed.startswith(b"%PDF-")
    assert 1 <= printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") <= 6


async def test_it_fits_a_narrow_window(found: Audit, tmp_path: Path) -> None:
    """The lanes stand one above the other; the bars keep their width."""
    file = tmp_path / "audit.html"
    file.write_text("".join(page_pieces(found)))
    async with browsing(tmp_path / "profile") as page:
        await page.open(file, width=500)
        await keep(page, "narrow")
        assert (await page.box(f"{CARD} .lane svg"))["width"] > 380


async def test_without_a_script_everything_is_there(page: Page, found: Audit) -> None:
    """The filter, which would do nothing, is not."""
    await page.send("Emulation.setScriptExecutionDisabled", value=True)
    await page.reload()
    # The browser's own tools still run scripts, the page does not.
    assert len(await page.texts("#keys tr[data-ns]")) == len(found.lines)
    assert await page.texts("#filters") == []
