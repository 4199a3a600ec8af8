"""What goes wrong is said in words, and the page goes on."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import Response, Route, expect

from tests.browser.conftest import OpenPage, with_proxies
from tests.browser.playground import Playground
from tests.server.conftest import RunningServer, eventually

pytestmark = pytest.mark.browser

KEY = "a-secret-key"


def test_an_answer_that_breaks_says_so_and_the_next_one_works(playground: Playground, server: RunningServer) -> None:
    server.engine.failures = 1

    playground.ask()

    failed = playground.page.locator("[data-state=failed]")
    expect(failed.first).to_contain_text("The server had an error while generating this answer.")
    playground.ask()
    expect(playground.answer("helpful")).to_have_attribute("data-state", "done")


def test_a_problem_is_not_hidden_behind_the_prompt(open_page: OpenPage, server: RunningServer) -> None:
    playground = open_page(server, height=480)
    playground.wait_for_models()
    playground.ask()
    server.engine.failures = 1

    playground.ask()

    problem = playground.answers.locator(".problem").last.bounding_box()
    prompt = playground.prompt.bounding_box()
    assert problem is not None
    assert prompt is not None
    assert problem["y"] + problem["height"] <= prompt["y"]


def test_a_busy_server_says_when_to_try_again(open_page: OpenPage, start: Callable[..., RunningServer]) -> None:
    server = with_proxies(start(max_running=1, max_waiting=0))
    playground = open_page(server)
    playground.wait_for_models()
    server.engine.step_seconds = 0.3

    with ThreadPoolExecutor(8) as crowd:
        crowd.submit(server.chat, max_tokens=200, ignore_eos=True)
        eventually(lambda: server.engine.num_running == 1, "an answer at work")
        for _ in range(7):  # two are let in behind it, and as it never ends by itself, nobody moves up
            crowd.submit(server.chat, max_tokens=200)
        eventually(lambda: server.engine.num_waiting == 2, "a full queue")
        with playground.page.expect_response(_is_refusal_of_helpful) as refused:
            playground.ask()
        server.engine.step_seconds = 0.0

    seconds = refused.value.headers["retry-after"]
    expect(playground.answer("helpful")).to_contain_text("The server is overloaded")
    expect(playground.answer("helpful")).to_contain_text(
        "Try again in a second." if seconds == "1" else f"Try again in {seconds} seconds."
    )


def test_one_column_s_refusal_stands_below_its_name_and_gives_one_piece_of_advice(
    open_page: OpenPage, server: RunningServer
) -> None:
    message = "The server is overloaded: the queue is full. Please retry later."

    def refuse_helpful(route: Route) -> None:
        if ":helpful" not in (route.request.post_data or ""):
            route.continue_()
            return
        route.fulfill(status=503, headers={"retry-after": "7"}, json={"error": {"message": message}})

    playground = open_page(server, routes={"**/v1/chat/completions": refuse_helpful})
    playground.wait_for_models()
    playground.ask()

    problem = playground.answer("helpful").locator(".problem")
    name = playground.answer("helpful").locator("header").bounding_box()
    words, beside = problem.bounding_box(), playground.answer("harmless").bounding_box()
    assert name is not None
    assert words is not None
    assert beside is not None
    assert problem.inner_text() == "The server is overloaded: the queue is full. Try again in 7 seconds."
    assert words["y"] - (name["y"] + name["height"]) < 20
    assert beside["height"] > 200, "a card of the words' own height would show nothing"


def test_a_connection_that_breaks_is_told_from_a_server_that_is_gone(playground: Playground) -> None:
    """What Chromium throws when a body breaks off, which no route of its can be made to do."""
    playground.page.evaluate(
        """() => {
            const broken = { start: (controller) => controller.error(new TypeError("network error")) };
            const reach = fetch;
            window.fetch = (path, init) =>
                path.endsWith("completions") ? new Response(new ReadableStream(broken)) : reach(path, init);
        }"""
    )

    playground.ask()

    expect(playground.answer("helpful")).to_contain_text("The connection broke before the answer was complete.")


def test_a_server_that_is_gone_is_named_as_that(playground: Playground, server: RunningServer) -> None:
    server.server.should_exit = True
    server.thread.join(30)

    playground.ask()

    for name in ("LLM alone", "harmless", "helpful"):
        expect(playground.answer(name)).to_contain_text("The server cannot be reached.")


def test_a_prompt_that_is_too_long_is_refused_with_the_numbers(playground: Playground) -> None:
    playground.ask("long " * 200)

    expect(playground.answer("helpful").locator(".problem")).to_contain_text("512")


def test_a_key_is_asked_for_kept_for_the_tab_and_sent(open_page: OpenPage, start: Callable[..., RunningServer]) -> None:
    server = with_proxies(start(api_keys=(KEY,)))
    playground = open_page(server)
    dialog = playground.page.get_by_role("dialog", name="This server asks for an API key")
    expect(dialog).to_be_visible()
    expect(playground.page.get_by_label("API key", exact=True).last).to_be_focused()

    playground.page.keyboard.type("another-key")
    playground.page.keyboard.press("Enter")
    expect(dialog).to_contain_text("The server did not accept the last key.")
    playground.page.keyboard.type(KEY)
    playground.page.keyboard.press("Enter")

    playground.wait_for_models()
    playground.ask()
    expect(playground.answer("helpful")).to_have_attribute("data-state", "done")
    assert playground.page.evaluate("sessionStorage.getItem('proxy-rlhf-api-key')") == KEY
    assert playground.page.evaluate("localStorage.length") == 0
    playground.page.get_by_text("This request as a curl line").click()
    region = playground.page.get_by_role("region", name="curl line")
    expect(region).to_contain_text("curl ")  # filled when the browser gets round to telling of the click
    line = region.inner_text()
    assert "$OPENAI_API_KEY" in line
    assert KEY not in line


def test_no_key_is_an_answer_too(open_page: OpenPage, start: Callable[..., RunningServer]) -> None:
    playground = open_page(with_proxies(start(api_keys=(KEY,))))

    playground.page.get_by_role("button", name="Cancel").click()

    expect(playground.page.locator("#columns-hint")).to_contain_text("only with a valid API key")
    playground.page.wait_for_timeout(6_000)
    expect(playground.page.locator("#key-dialog")).to_be_hidden()
    playground.page.get_by_role("button", name="API key").click()
    playground.page.keyboard.type(KEY)
    playground.page.keyboard.press("Enter")
    playground.wait_for_models()


def _is_refusal_of_helpful(response: Response) -> bool:
    return response.status == 429 and ":helpful" in (response.request.post_data or "")
