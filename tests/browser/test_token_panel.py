"""A token opens on what was offered there: by mouse, by touch and by the keyboard alone."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.playground import Playground
from tests.browser.test_answers import asked_again
from tests.server.conftest import RunningServer

pytestmark = pytest.mark.browser


@pytest.fixture
def decisions(playground: Playground, server: RunningServer) -> list[dict[str, Any]]:
    """Of an answer by `helpful` that the page shows."""
    playground.set_slider("Max tokens", 0)
    playground.ask()
    positions: list[dict[str, Any]] = asked_again(server, playground.chats[2])["choices"][0]["proxy"]["decisions"]
    return positions


def rows(playground: Playground) -> list[list[str]]:
    """The table's cells."""
    script = "all => all.map(row => [...row.cells].map(cell => cell.textContent))"
    found: list[list[str]] = playground.panel.locator("tbody tr").evaluate_all(script)
    return found


def percent(prob: float) -> str:
    """A probability as the panel words it."""
    if prob < 0.001:
        return "< 0.1 %"
    return f"{prob * 100:.1f} %" if prob < 0.1 else f"{prob * 100:.0f} %"


def test_a_click_shows_the_candidates_and_their_probabilities(
    playground: Playground, decisions: list[dict[str, Any]]
) -> None:
    playground.tokens("helpful").nth(4).click()

    candidates = decisions[4]["candidates"]
    assert len(candidates) == 3
    expect(playground.panel).to_be_visible()
    expect(playground.panel).to_contain_text("helpful, token 5 of 16")
    expect(playground.panel).to_contain_text("2 candidates were rejected. The next one was forced")
    assert rows(playground) == [
        [candidates[0]["token"], percent(candidates[0]["prob"]), percent(candidates[0]["accept_prob"]), "rejected"],
        [candidates[1]["token"], percent(candidates[1]["prob"]), percent(candidates[1]["accept_prob"]), "rejected"],
        [candidates[2]["token"], percent(candidates[2]["prob"]), "not asked", "forced"],
    ]


def test_the_panel_closes_by_escape_and_by_a_click_elsewhere(
    playground: Playground, decisions: list[dict[str, Any]]
) -> None:
    token = playground.tokens("helpful").nth(2)
    token.click()
    playground.page.keyboard.press("Escape")
    expect(playground.panel).to_be_hidden()
    expect(token).to_be_focused()

    token.click()
    playground.page.get_by_role("heading", name="Answer with").or_(playground.page.locator("#llm")).first.click()

    expect(playground.panel).to_be_hidden()
    expect(playground.page.locator(".token.marked")).to_have_count(0)


def test_a_finger_opens_it_at_the_bottom_of_a_small_screen(open_page: OpenPage, server: RunningServer) -> None:
    playground = open_page(server, width=390, height=844, has_touch=True)
    playground.wait_for_models()
    playground.ask()

    playground.tokens("helpful").nth(3).tap()

    expect(playground.panel).to_be_visible()
    box = playground.panel.bounding_box()
    assert box is not None
    assert (box["x"], box["width"]) == (0, 390)
    assert box["y"] + box["height"] == pytest.approx(844, abs=1)
    assert not playground.is_wider_than_the_screen()


def test_the_keyboard_alone_asks_walks_and_looks(open_page: OpenPage, server: RunningServer) -> None:
    playground = open_page(server)
    playground.wait_for_models()
    keyboard = playground.page.keyboard

    keyboard.press("Tab")
    expect(playground.page.get_by_role("link", name="Skip to the prompt")).to_be_focused()
    keyboard.press("Enter")
    expect(playground.prompt).to_be_focused()
    keyboard.type("hello")
    keyboard.press("Enter")
    playground.wait_for_answers()
    expect(playground.prompt).to_be_focused()
    expect(playground.answer("helpful").get_by_role("button", name="This one is better")).to_be_visible()

    for _ in range(4):  # past the three buttons of its feedback
        keyboard.press("Shift+Tab")
    first = playground.tokens("helpful").first
    expect(first).to_be_focused()
    keyboard.press("ArrowRight")
    keyboard.press("ArrowRight")
    expect(playground.tokens("helpful").nth(2)).to_be_focused()
    keyboard.press("Enter")
    expect(playground.panel).to_contain_text("token 3 of")
    keyboard.press("ArrowRight")
    expect(playground.panel).to_contain_text("token 4 of")
    expect(playground.panel.get_by_role("button", name="Next token")).to_be_focused()
    keyboard.press("Escape")
    expect(playground.tokens("helpful").nth(3)).to_be_focused()
    for _ in range(4):
        keyboard.press("Shift+Tab")
    expect(playground.tokens("harmless").first).to_be_focused()


def test_next_rejection_skips_what_was_accepted_at_once(playground: Playground, server: RunningServer) -> None:
    playground.set_slider("Max tokens", 1)
    playground.ask()
    positions = asked_again(server, playground.chats[1])["choices"][0]["proxy"]["decisions"]
    rejected = [index for index, position in enumerate(positions) if index and len(position["candidates"]) > 1]
    assert rejected[0] > 1, "a token between must be skipped for this to show anything"

    playground.tokens("harmless").first.click()
    for index in rejected[:2]:
        playground.panel.get_by_role("button", name="Next rejection").click()
        expect(playground.panel).to_contain_text(f"token {index + 1} of")


def test_only_one_token_of_an_answer_is_in_the_tab_order(
    playground: Playground, decisions: list[dict[str, Any]]
) -> None:
    answer = playground.answer("helpful")

    expect(answer.locator("[tabindex='0']")).to_have_count(1)
    playground.tokens("helpful").nth(5).click()
    playground.page.keyboard.press("Escape")

    expect(answer.locator("[tabindex='0']")).to_have_count(1)
    expect(answer.locator("[role=button]")).to_have_text(decisions[5]["text"])
