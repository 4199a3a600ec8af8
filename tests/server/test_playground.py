"""GET /: the playground's files, how they may be cached and what they may load."""

import re
from collections.abc import Callable

import httpx
import pytest

from server.routes.playground import FOLDER
from tests.server.conftest import RunningServer

NAMES = sorted(path.name for path in FOLDER.iterdir())


def directives(response: httpx.Response) -> dict[str, str]:
    """The Content-Security-Policy."""
    return dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))


def test_the_page_is_at_the_root(server: RunningServer) -> None:
    response = httpx.get(server.url + "/")

    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.content == (FOLDER / "index.html").read_bytes()


@pytest.mark.parametrize(("name", "media_type"), [("main.js", "text/javascript"), ("base.css", "text/css")])
def test_its_parts_have_their_types(server: RunningServer, name: str, media_type: str) -> None:
    response = httpx.get(f"{server.url}/playground/{name}")

    assert response.headers["content-type"] == f"{media_type}; charset=utf-8"
    assert response.content == (FOLDER / name).read_bytes()


def test_everything_that_the_page_names_is_there(server: RunningServer) -> None:
    wanted = set(re.findall(r'(?:src|href)="(playground/[^"]+)"', (FOLDER / "index.html").read_text()))
    for script in FOLDER.glob("*.js"):
        wanted |= {f"playground/{name}" for name in re.findall(r'from "\./([^"]+)"', script.read_text())}

    assert len(wanted) > 15
    for path in wanted:
        assert httpx.get(f"{server.url}/{path}").status_code == 200, path
    assert {f"playground/{name}" for name in NAMES} - wanted == {"playground/index.html"}, "files that nothing loads"


def test_a_copy_that_is_still_good_is_not_sent_again(server: RunningServer) -> None:
    first = httpx.get(server.url + "/")
    etag = first.headers["etag"]

    again = httpx.get(server.url + "/", headers={"if-none-match": f'"other", W/{etag}'})
    stale = httpx.get(server.url + "/", headers={"if-none-match": '"other"'})

    assert first.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert stale.status_code == 200
    assert httpx.get(f"{server.url}/playground/main.js").headers["etag"] != etag


def test_a_head_has_the_headers_alone(server: RunningServer) -> None:
    response = httpx.head(server.url + "/")

    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) == len((FOLDER / "index.html").read_bytes())


def test_the_policy_lets_nothing_in_from_elsewhere(server: RunningServer) -> None:
    policy = directives(httpx.get(server.url + "/"))

    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert "unsafe" not in str(policy)


def test_the_files_keep_to_the_policy() -> None:
    page = (FOLDER / "index.html").read_text()

    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", page)
    for path in FOLDER.iterdir():
        text = path.read_text()
        assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z]", text), f"{path.name} names another place"
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path.name


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fapp.py", "%2e%2e%2fapp.py", "", "index.html%00"])
def test_nothing_else_is_served(server: RunningServer, name: str) -> None:
    response = httpx.get(f"{server.url}/playground/{name}")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_url"


def test_the_page_needs_no_key(start: Callable[..., RunningServer]) -> None:
    server = start(api_keys=("a-secret-key",))

    assert httpx.get(server.url + "/").status_code == 200
    assert httpx.get(server.url + "/v1/models").status_code == 401
