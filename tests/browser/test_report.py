"""The report's page in a browser: nothing asked of anybody, no scrolling sideways, readable for everybody."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.playground import Playground, Wiretap
from tests.browser.test_accessibility import violations
from tests.trainer.evaluations import fit_reward, run, write, write_prompts
from tests.trainer.tiny_llm import tiny_llm

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with charts, tables, a sweep and answers."""
    folder, llm = tmp_path_factory.mktemp("report"), tiny_llm()
    prompts, reward = write_prompts(folder / "prompts.jsonl"), fit_reward(folder, llm)
    proxy = write(folder / "proxy", llm, acceptance_bias=-2.0)
    systems = ("best-of:2", f"tame={proxy}", f"sweep={proxy}:p_t=.1/.001", "random")
    run(llm, prompts, *systems, reward=reward, output=folder / "out", report=True)
    return folder / "out" / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_is_readable_for_everybody_and_asks_nobody(
    chromium: Browser, page_file: Path, scheme: str, width: int
) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    wiretap = Wiretap(page)

    page.goto(page_file.as_uri())

    report = Playground(page, wiretap)
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert page.locator("svg").count() >= 4
    assert violations(report) == []
    assert not report.is_wider_than_the_screen()
    assert (wiretap.urls, wiretap.complaints) == ([page_file.as_uri()], [])
    context.close()


def test_every_number_of_the_page_is_in_its_json(chromium: Browser, page_file: Path) -> None:
    page = chromium.new_page()
    page.goto(page_file.as_uri())

    shown = page.locator("#table > .scroll td").all_inner_texts()

    tables = json.loads((page_file.parent / "report.json").read_text())["sections"][2]["tables"]
    stored = {cell for table in tables for row in table["body"] for cell in row}
    assert len(shown) > 50
    assert set(shown) <= stored
    page.close()
