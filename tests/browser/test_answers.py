"""Answers side by side: what streams in is what the API says, token by token."""

import subprocess
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from proxy_model.versions.registry import ProxyRegistry
from tests.browser.conftest import OpenPage
from tests.browser.playground import Playground
from tests.server.conftest import RunningServer, eventually
from tests.server.fakes import new_checkpoint, new_policy, publish

pytestmark = pytest.mark.browser


def asked_again(server: RunningServer, sent: dict[str, Any]) -> dict[str, Any]:
    """The answer, in one piece, to a request that the page has sent."""
    body = {name: value for name, value in sent.items() if name not in ("stream", "stream_options", "store")}
    answer: dict[str, Any] = server.chat(**body).json()
    return answer


@pytest.mark.parametrize(("column", "name"), [(0, "LLM alone"), (1, "harmless"), (2, "helpful")])
def test_every_column_shows_its_models_answer(
    playground: Playground, server: RunningServer, column: int, name: str
) -> None:
    playground.set_slider("Max tokens", 1)

    playground.ask("hello")

    sent = playground.chats[column]
    whole = asked_again(server, sent)
    assert [body["model"] for body in playground.chats] == ["tiny:base", "tiny:harmless", "tiny:helpful"]
    assert sent["messages"] == [{"role": "user", "content": "hello"}]
    assert sent["max_tokens"] == 32
    shown = playground.answer(name).locator(".tokens").evaluate("element => element.textContent")
    assert shown == whole["choices"][0]["message"]["content"]


def test_tokens_are_tinted_by_what_happened_there(playground: Playground, server: RunningServer) -> None:
    playground.set_slider("Max tokens", 1)

    playground.ask()

    positions = asked_again(server, playground.chats[1])["choices"][0]["proxy"]["decisions"]
    expected = []
    for position in positions:
        num_rejected = len(position["candidates"]) - 1
        is_forced = not position["candidates"][-1]["is_free"]
        expected.append((f"rejected-{num_rejected}" if num_rejected else "", is_forced))
    classes = playground.tokens("harmless").evaluate_all("all => all.map(one => [...one.classList])")
    shown = [(next((c for c in found if c.startswith("rejected-")), ""), "forced" in found) for found in classes]
    assert shown == expected
    assert {tint for tint, _ in shown} == {"", "rejected-1", "rejected-2"}, "all kinds must occur to show anything"


def test_numbers_are_those_of_the_api(playground: Playground, server: RunningServer) -> None:
    playground.set_slider("Max tokens", 1)

    playground.ask()

    whole = asked_again(server, playground.chats[1])
    report = whole["proxy"]
    footer = playground.answer("harmless").locator(".numbers")
    expect(footer).to_contain_text(f"tokens{whole['usage']['completion_tokens']}")
    expect(footer).to_contain_text(f"rejections{report['rejections']}")
    expect(footer).to_contain_text(f"forced{round(report['forced'] / 32 * 100)} %")
    expect(footer).to_contain_text("tokens/s")
    expect(playground.answer("harmless").locator(".version")).to_have_text("@1")
    expect(playground.answer("LLM alone").locator(".numbers")).not_to_contain_text("rejections")


def test_text_appears_while_it_is_written_and_stop_keeps_it(playground: Playground, server: RunningServer) -> None:
    server.engine.step_seconds = 0.1
    playground.prompt.fill("hello")
    playground.prompt.press("Enter")
    expect(playground.tokens("helpful").nth(3)).to_be_visible()
    expect(playground.answer("helpful")).to_have_attribute("aria-busy", "true")

    playground.page.get_by_role("button", name="Stop").click()

    playground.wait_for_answers()
    expect(playground.answer("helpful")).to_contain_text("stopped")
    assert 3 < playground.tokens("helpful").count() < 100
    eventually(lambda: server.engine.num_running == 0, "the slots of stopped answers being free")
    expect(playground.page.get_by_role("button", name="Send")).to_be_visible()


def test_columns_can_be_chosen_but_never_none(playground: Playground) -> None:
    playground.page.get_by_label("LLM alone").uncheck()
    playground.page.get_by_label("helpful").uncheck()

    playground.ask()

    assert [body["model"] for body in playground.chats] == ["tiny:harmless"]
    expect(playground.page.get_by_label("harmless @1")).to_be_disabled()


def test_a_canary_is_a_column_and_its_version_is_not_offered_twice(open_page: OpenPage, server: RunningServer) -> None:
    checkpoint = new_checkpoint(server.llm, None)
    ProxyRegistry(server.proxies).publish("helpful", checkpoint, aliases=["canary"])
    eventually(lambda: server.service.serving().reloader.table.names("canary") == ["helpful"])

    playground = open_page(server)
    playground.wait_for_models()

    expect(playground.page.get_by_label("helpful@canary @2")).to_have_count(1)
    expect(playground.page.get_by_label("helpful@2")).to_have_count(0)


def test_each_column_goes_on_with_what_it_said_itself(playground: Playground) -> None:
    playground.set_slider("Max tokens", 0)
    playground.ask("first")
    said = playground.answer("helpful").locator(".tokens").evaluate("element => element.textContent")

    playground.ask("second")

    assert [message["role"] for message in playground.chats[5]["messages"]] == ["user", "assistant", "user"]
    assert [message["content"] for message in playground.chats[5]["messages"]] == ["first", said, "second"]
    assert playground.chats[3]["messages"][1]["content"] != said


def test_sliders_set_the_request_and_what_is_as_trained_is_left_out(playground: Playground) -> None:
    playground.ask()
    playground.set_slider("p_t", 12)
    playground.set_slider("Temperature", 7)

    playground.ask()

    before, after = playground.chats[2], playground.chats[5]
    assert before["proxy"] == {"return_decisions": True}
    assert (before["temperature"], "seed" in before) == (0, False)
    assert after["proxy"] == {"return_decisions": True, "p_t": 1}
    assert after["temperature"] == 0.7
    assert len({body["seed"] for body in playground.chats[3:]}) == 1, "chance must be alike for all columns"
    assert "proxy" not in playground.chats[3], "the LLM alone has no p_t"
    expect(playground.answer("helpful").locator(".numbers")).to_contain_text("rejections0")
    expect(playground.page.get_by_label("p_t")).to_have_attribute("aria-valuetext", "1")


@pytest.mark.parametrize("width", [1280, 390])
def test_each_slider_s_value_stands_in_the_line_of_its_title(
    open_page: OpenPage, server: RunningServer, width: int
) -> None:
    """With the longest words that two proxies of the demo have."""

    def with_floors(route: Route) -> None:
        body = route.fetch().json()
        for model in body["data"]:
            if model["skam"] is not None:
                model["skam"]["p_t"] = 0.015 if "helpful" in model["id"] else 0.005
        route.fulfill(json=body)

    playground = open_page(server, width=width, routes={"**/v1/models": with_floors})
    playground.wait_for_models()
    if width < 500:
        playground.page.get_by_role("button", name="Settings").click()

    titles = playground.page.locator(".slider-title")
    expect(titles.first).to_have_text("Floor p_tas trained (0.005, 0.015)")
    heights = titles.evaluate_all("titles => titles.map((title) => title.getBoundingClientRect().height)")
    assert len(heights) == 3
    assert max(heights) < 30, "of two lines of 21 pixels"


def test_a_new_version_is_told_and_answers(playground: Playground, server: RunningServer) -> None:
    publish(server.proxies, server.llm, policy=new_policy(3, acceptance=0.99))

    expect(playground.page.locator(".notice")).to_contain_text("helpful: version 2 is here")

    playground.ask()
    expect(playground.answer("helpful").locator(".version")).to_have_text("@2")
    expect(playground.page.get_by_label("helpful @2")).to_be_checked()


def test_the_curl_line_is_the_request(playground: Playground, server: RunningServer) -> None:
    playground.page.get_by_label("LLM alone").uncheck()
    playground.page.get_by_label("harmless").uncheck()
    playground.prompt.fill('it\'s "quoted" $HOME')
    playground.page.get_by_text("This request as a curl line").click()
    region = playground.page.get_by_role("region", name="curl line")
    expect(region).to_contain_text("curl ")  # filled when the browser gets round to telling of the click
    line = region.inner_text()

    ran = subprocess.run(["bash", "-c", f"{line} --silent"], capture_output=True, text=True, timeout=60, check=True)
    playground.prompt.press("Enter")
    playground.wait_for_answers()

    assert line.startswith("curl ")
    assert ran.stdout.rstrip().endswith("data: [DONE]")
    assert playground.chats[0]["messages"][0]["content"] == 'it\'s "quoted" $HOME'
    assert '"content":"it' in line


def test_an_example_can_be_asked_and_all_be_cleared(open_page: OpenPage, server: RunningServer) -> None:
    playground = open_page(server)
    playground.wait_for_models()

    playground.page.get_by_role("list", name="Example prompts").get_by_role("button").first.click()

    playground.wait_for_answers()
    assert playground.chats[0]["messages"][0]["content"] == "How do I get back at my neighbour?"
    expect(playground.page.locator("#welcome")).to_be_hidden()
    playground.page.get_by_role("button", name="New chat").click()
    expect(playground.answers).to_have_count(0)
    expect(playground.page.locator("#welcome")).to_be_visible()
    expect(playground.prompt).to_be_focused()


def test_a_proxy_that_is_conditioned_on_a_return_has_a_dial(open_page: OpenPage, server: RunningServer) -> None:
    def conditioned(route: Route) -> None:
        models = route.fetch().json()
        for model in models["data"]:
            if model["id"] == "tiny:helpful":
                model["target_return"] = {"default": 1.5, "min": -4.0, "max": 4.0}
        route.fulfill(json=models)

    playground = open_page(server, routes={"**/v1/models": conditioned})
    playground.wait_for_models()
    dial = playground.page.get_by_label("Target return")
    expect(dial).to_have_attribute("aria-valuetext", "as trained (1.5)")
    playground.set_slider("Target return", 14)
    expect(dial).to_have_attribute("aria-valuetext", "+2.5")
    playground.ask()

    assert [body.get("proxy", {}).get("target_return") for body in playground.chats] == [None, None, 2.5]
    playground.page.get_by_label("helpful @1").uncheck()
    expect(playground.page.get_by_label("Target return")).to_have_count(0)
