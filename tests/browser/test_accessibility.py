"""For everybody: axe-core's rules, screens of any width, spoken news, no motion for those who want none."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.playground import Playground
from tests.server.conftest import RunningServer, eventually

pytestmark = pytest.mark.browser

AXE_OPTIONS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def violations(playground: Playground) -> list[str]:
    """axe-core's rules that the page breaks, and where."""
    found: list[dict[str, Any]] = Axe().run(playground.page, options=AXE_OPTIONS).response["violations"]
    return [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_in_any_state(open_page: OpenPage, server: RunningServer, scheme: str, width: int) -> None:
    playground = open_page(server, width=width, color_scheme=scheme, reduced_motion="reduce")
    playground.wait_for_models()
    if width < 500:
        playground.page.get_by_role("button", name="Settings").click()
    assert violations(playground) == []

    playground.page.get_by_text("This request as a curl line").click()
    server.engine.failures = 1
    playground.ask()
    playground.ask()
    assert violations(playground) == []

    playground.tokens("helpful").nth(3).click()
    assert violations(playground) == []


def test_axe_finds_nothing_in_the_dialog(open_page: OpenPage, start: Any) -> None:
    playground = open_page(start(api_keys=("a-secret-key",)))

    expect(playground.page.get_by_role("dialog")).to_be_visible()

    assert violations(playground) == []


def test_landmarks_and_headings_tell_the_page(playground: Playground) -> None:
    playground.ask()

    page = playground.page
    for role, name in (("banner", None), ("main", None), ("complementary", "Settings"), ("form", "Your prompt")):
        expect(page.get_by_role(role, name=name)).to_have_count(1)  # type: ignore[arg-type]
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    expect(page.get_by_role("heading", name="helpful", level=3)).to_have_count(1)


def test_a_turn_is_spoken_twice_and_no_token_is(playground: Playground, server: RunningServer) -> None:
    playground.page.evaluate(
        """() => {
          window.spoken = [];
          const note = () => window.spoken.push(document.getElementById("status").textContent);
          new MutationObserver(note).observe(document.getElementById("status"), { childList: true });
        }"""
    )

    playground.ask()

    def spoken() -> list[str]:
        found: list[str] = playground.page.evaluate("window.spoken")
        return found

    eventually(lambda: len(spoken()) == 2, "the second announcement")
    assert spoken()[0] == "3 answers are being written."
    assert "helpful: done, 128 tokens, 256 rejections." in spoken()[1]
    live = playground.page.locator("main [aria-live], main [role=status], main [role=alert], main [role=log]")
    expect(live).to_have_count(0)


@pytest.mark.parametrize("width", [320, 390, 700, 1024])
def test_nothing_is_wider_than_the_screen(open_page: OpenPage, server: RunningServer, width: int) -> None:
    playground = open_page(server, width=width, height=800)
    playground.wait_for_models()

    assert not playground.is_wider_than_the_screen()
    playground.ask("w" * 150)
    assert not playground.is_wider_than_the_screen()
    playground.page.get_by_text("This request as a curl line").click()
    assert not playground.is_wider_than_the_screen()


def test_nothing_moves_for_those_who_want_no_motion(open_page: OpenPage, server: RunningServer) -> None:
    def animations(reduced_motion: str) -> int:
        server.engine.step_seconds = 0.1
        playground = open_page(server, reduced_motion=reduced_motion)
        playground.wait_for_models()
        playground.prompt.fill("hello")
        playground.prompt.press("Enter")
        expect(playground.tokens("helpful").nth(2)).to_be_visible()
        count: int = playground.page.evaluate("document.getAnimations().length")
        playground.page.get_by_role("button", name="Stop").click()
        playground.wait_for_answers()
        return count

    assert animations("no-preference") > 0
    assert animations("reduce") == 0


def test_targets_are_large_enough_for_a_finger(open_page: OpenPage, server: RunningServer) -> None:
    playground = open_page(server, width=390, height=844, has_touch=True)
    playground.wait_for_models()
    playground.page.get_by_role("button", name="Settings").click()

    boxes = [one.bounding_box() for one in playground.page.locator("button:visible, label.choice:visible").all()]

    assert len(boxes) > 5
    assert all(box is not None and box["height"] >= 24 and box["width"] >= 24 for box in boxes)
