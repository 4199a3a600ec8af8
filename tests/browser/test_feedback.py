"""Thumbs and "this one is better" arrive in the store."""

from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Route, expect

from tests.browser.conftest import OpenPage
from tests.browser.playground import Playground
from tests.server.conftest import RunningServer, eventually

pytestmark = pytest.mark.browser


def kept(server: RunningServer) -> list[dict[str, Any]]:
    """All feedback, the oldest first."""
    found: list[dict[str, Any]] = httpx.get(f"{server.url}/v1/feedback").json()["data"]
    return found


def stored_texts(server: RunningServer) -> dict[str, str]:
    """The texts of stored completions by id."""
    data = httpx.get(f"{server.url}/v1/chat/completions").json()["data"]
    return {completion["id"]: completion["choices"][0]["message"]["content"] for completion in data}


def shown(playground: Playground, name: str) -> str:
    """An answer's text."""
    text: str = playground.answer(name).locator(".tokens").evaluate("element => element.textContent")
    return text


def better(playground: Playground, name: str) -> Locator:
    return playground.answer(name).get_by_role("button", name="This one is better")


def test_a_thumb_is_a_rating_of_the_stored_answer(playground: Playground, server: RunningServer) -> None:
    playground.ask()
    thumb = playground.page.get_by_role("button", name="Bad answer by helpful")
    assert thumb.inner_text() == ""  # a picture: fonts without such signs are common

    thumb.click()

    expect(thumb).to_have_attribute("aria-pressed", "true")
    [rating] = kept(server)
    assert (rating["type"], rating["rating"], rating["consent"]) == ("rating", -1, False)
    assert stored_texts(server)[rating["completion_id"]] == shown(playground, "helpful")


def test_a_second_thought_replaces_the_first(playground: Playground, server: RunningServer) -> None:
    playground.ask()
    down = playground.page.get_by_role("button", name="Bad answer by harmless")
    up = playground.page.get_by_role("button", name="Good answer by harmless")
    down.click()
    expect(down).to_have_attribute("aria-pressed", "true")

    up.click()

    expect(up).to_have_attribute("aria-pressed", "true")
    expect(down).to_have_attribute("aria-pressed", "false")
    assert [one["rating"] for one in kept(server)] == [1]


def test_better_is_a_preference_over_every_other_answer_with_consent_if_given(
    playground: Playground, server: RunningServer
) -> None:
    playground.page.get_by_label("My feedback may be used to train proxies").check()
    playground.ask()

    better(playground, "harmless").click()

    expect(better(playground, "harmless")).to_have_attribute("aria-pressed", "true")
    texts = stored_texts(server)
    pairs = {(texts[p["preference"]["chosen_id"]], texts[p["preference"]["rejected_id"]]) for p in kept(server)}
    chosen = shown(playground, "harmless")
    assert pairs == {(chosen, shown(playground, "LLM alone")), (chosen, shown(playground, "helpful"))}
    assert all(one["consent"] for one in kept(server))


def test_all_columns_go_on_from_the_better_answer(playground: Playground) -> None:
    playground.ask("first")
    better(playground, "helpful").click()
    expect(better(playground, "helpful")).to_have_attribute("aria-pressed", "true")
    chosen = shown(playground, "helpful")

    playground.ask("second")

    histories = [[message["content"] for message in body["messages"]] for body in playground.chats[3:]]
    assert histories == [["first", chosen, "second"]] * 3
    expect(better(playground, "harmless")).to_be_visible()


def test_answers_to_other_conversations_cannot_be_compared(playground: Playground) -> None:
    playground.ask("first")
    playground.ask("second")

    expect(playground.page.get_by_role("button", name="Good answer by helpful")).to_have_count(2)
    expect(playground.page.get_by_role("button", name="This one is better")).to_have_count(3)


def test_a_stopped_answer_takes_no_feedback(playground: Playground, server: RunningServer) -> None:
    server.engine.step_seconds = 0.1
    playground.prompt.fill("hello")
    playground.prompt.press("Enter")
    expect(playground.tokens("helpful").nth(1)).to_be_visible()

    playground.page.get_by_role("button", name="Stop").click()

    playground.wait_for_answers()
    expect(playground.page.get_by_role("button", name="Good answer by helpful")).to_have_count(0)


def test_feedback_that_is_refused_is_said(playground: Playground, server: RunningServer) -> None:
    playground.ask()
    for completion in stored_texts(server):
        httpx.delete(f"{server.url}/v1/chat/completions/{completion}")

    playground.page.get_by_role("button", name="Good answer by helpful").click()

    expect(playground.page.locator(".notice.problem")).to_contain_text("Your feedback was not kept.")
    expect(playground.page.get_by_role("button", name="Good answer by helpful")).to_have_attribute(
        "aria-pressed", "false"
    )


def test_a_server_without_feedback_shows_no_buttons_and_stores_nothing(
    open_page: OpenPage, server: RunningServer
) -> None:
    def without_feedback(route: Route) -> None:
        document = route.fetch().json()
        del document["paths"]["/v1/feedback"]
        route.fulfill(json=document)

    playground = open_page(server, routes={"**/openapi.json": without_feedback})
    playground.wait_for_models()

    playground.ask()

    expect(playground.page.locator(".actions button")).to_have_count(0)
    assert all("store" not in body for body in playground.chats)
    eventually(lambda: stored_texts(server) == {}, "an empty store")
