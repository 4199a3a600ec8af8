"""The page as its tests see it: what can be done on it and what it shows."""

import json
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, expect

PATIENCE_MILLISECONDS = 30_000.0
_EXPECTED = "Failed to load resource: the server responded with a status of"
"""What Chromium says of every 4xx and 5xx; the tests that provoke one look at what the page says."""


class Wiretap:
    """Every request that a page makes, and what the console complains of."""

    def __init__(self, page: Page) -> None:
        self.urls: list[str] = []
        self.chats: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        page.on("request", self._requested)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    @property
    def origin(self) -> str:
        """Host and port of the page."""
        return self.urls[0].split("/")[2]

    def _requested(self, request: Request) -> None:
        self.urls.append(request.url)
        if request.url.endswith("/v1/chat/completions"):
            self.chats.append(json.loads(request.post_data or ""))

    def _said(self, message: ConsoleMessage) -> None:
        is_offline = "net::ERR_" in message.text
        if message.type in ("error", "warning") and not message.text.startswith(_EXPECTED) and not is_offline:
            self.complaints.append(message.text)


class Playground:
    """One open page."""

    def __init__(self, page: Page, wiretap: Wiretap) -> None:
        self.page = page
        self.wiretap = wiretap
        self.prompt = page.get_by_label("Prompt", exact=True)
        self.panel = page.locator("#panel")
        self.answers = page.locator("article.answer")

    @property
    def chats(self) -> list[dict[str, Any]]:
        """The bodies of the chat requests so far."""
        return self.wiretap.chats

    def wait_for_models(self) -> None:
        """Until the list of models is there."""
        expect(self.page.locator(".choice").first).to_be_attached()

    def ask(self, prompt: str = "hello") -> None:
        """Send a prompt and wait for the ends of all answers."""
        self.prompt.fill(prompt)
        self.prompt.press("Enter")
        self.wait_for_answers()

    def wait_for_answers(self) -> None:
        """Until there are answers and none is being written."""
        expect(self.answers.first).to_be_visible()
        expect(self.page.locator("[data-state=waiting], [data-state=writing]")).to_have_count(0)

    def answer(self, name: str) -> Locator:
        """The newest answer of a model."""
        return self.page.get_by_role("article", name=name, exact=True).last

    def tokens(self, name: str) -> Locator:
        """Its tokens."""
        return self.answer(name).locator(".token")

    def set_slider(self, label: str, steps: int) -> None:
        """Move a slider by the keyboard, from its left end."""
        slider = self.page.get_by_label(label)
        slider.press("Home")
        for _ in range(steps):
            slider.press("ArrowRight")

    def is_wider_than_the_screen(self) -> bool:
        """Whether one would have to scroll sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))
