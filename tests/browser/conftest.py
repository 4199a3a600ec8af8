"""Headless Chromium, as the system has it, in front of a real server over the tiny LLM and two proxies."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.browser.playground import PATIENCE_MILLISECONDS, Playground, Wiretap
from tests.conftest import steer
from tests.server.conftest import RunningServer, eventually
from tests.server.conftest import llm as llm
from tests.server.conftest import start as start
from tests.server.fakes import new_policy, picky_policy, publish

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests; each has a profile of its own."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("Chromium is not installed")
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def server(start: Callable[..., RunningServer]) -> RunningServer:
    """`helpful` rejects all that it may, two candidates a token; `harmless` rejects now and then."""
    return with_proxies(start())


def with_proxies(server: RunningServer) -> RunningServer:
    """Publish both and wait until they are served."""
    publish(server.proxies, server.llm, policy=picky_policy())
    publish(server.proxies, server.llm, "harmless", policy=steer(new_policy(4)))
    eventually(lambda: server.service.serving().reloader.table.names() == ["harmless", "helpful"])
    return server


OpenPage = Callable[..., Playground]


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Open the playground of a server; at the end, nothing may have left it or broken its policy."""
    opened: list[tuple[Page, Wiretap]] = []

    def open_one(
        server: RunningServer,
        *,
        width: int = 1280,
        height: int = 900,
        routes: Mapping[str, Callable[[Route], None]] | None = None,
        **options: Any,
    ) -> Playground:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE_MILLISECONDS)
        page = context.new_page()
        for pattern, answer in (routes or {}).items():
            page.route(pattern, answer)
        wiretap = Wiretap(page)
        opened.append((page, wiretap))
        page.goto(server.url + "/")
        return Playground(page, wiretap)

    yield open_one
    for page, wiretap in opened:
        page.context.close()
        assert wiretap.complaints == []
        assert {url.split("/")[2] for url in wiretap.urls if not url.startswith("data:")} <= {wiretap.origin}


@pytest.fixture
def playground(open_page: OpenPage, server: RunningServer) -> Playground:
    """The page, with the models of the server listed."""
    playground = open_page(server)
    playground.wait_for_models()
    return playground
