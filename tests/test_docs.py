"""What the documents point at is there: links and anchors, commands and flags, settings and their defaults."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer.main
from markdown_it import MarkdownIt
from markdown_it.token import Token

from cli.main import app
from server.settings import Settings, setting_names
from trainer.config_file import config_from_mapping

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
COMMANDS = typer.main.get_command(app)


def tokens(document: Path) -> list[Token]:
    """The document as Markdown, inline tokens behind the block that holds them."""
    blocks = MarkdownIt("commonmark").enable("table").parse(document.read_text())
    return [token for block in blocks for token in (block, *(block.children or ()))]


def targets(document: Path) -> Iterator[str]:
    """What its links and pictures point at, but for other sites."""
    for token in tokens(document):
        pictures = re.findall(r'<img [^>]*src="([^"]+)"', token.content) if token.type.startswith("html") else []
        found = [token.attrs.get("href"), token.attrs.get("src"), *pictures]
        yield from (str(target) for target in found if target and "://" not in str(target))


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    found = tokens(document)
    titles = [text.content for opening, text in pairwise(found) if opening.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(document: Path) -> Iterator[list[str]]:
    """The words of every `proxy-rlhf` line in its shell blocks, comments left out."""
    for token in tokens(document):
        if token.type == "fence" and token.info == "sh":
            lines = token.content.replace("\\\n", " ").splitlines()
            yield from (shlex.split(line, comments=True)[1:] for line in lines if line.startswith("proxy-rlhf "))


def settings_files(document: Path) -> list[str]:
    """The TOML blocks."""
    return [token.content for token in tokens(document) if token.type == "fence" and token.info == "toml"]


def unknown_in(words: list[str]) -> str | None:
    """The first command or flag that `proxy-rlhf` does not have."""
    command = COMMANDS
    for word in words:
        if isinstance(subcommands := getattr(command, "commands", None), dict):
            if word not in subcommands:
                return word
            command = subcommands[word]
        elif word.startswith("--") and not any(word in option.opts for option in command.params):
            return word
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for target in targets(document):
        path, _, anchor = unquote(target).partition("#")
        aim = (document.parent / path).resolve() if path else document
        if not aim.exists() or (anchor and anchor not in anchors(aim)):
            broken.append(target)

    assert broken == []


def test_every_document_is_linked_from_the_readme() -> None:
    linked = {target.partition("#")[0] for target in targets(REPOSITORY / "README.md")}

    assert {str(document.relative_to(REPOSITORY)) for document in DOCUMENTS} - linked == {"README.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(REPOSITORY)))
def test_every_command_and_flag_is_known(document: Path) -> None:
    assert [words for words in commands(document) if unknown_in(words) is not None] == []


@pytest.mark.parametrize("text", [text for document in DOCUMENTS for text in settings_files(document)])
def test_the_settings_of_a_run_are_accepted(text: str) -> None:
    """The first is the guide's, the others training.md's."""
    config = config_from_mapping({**tomllib.loads(text), "output": "runs/mine"})

    assert config.proxy in ("mine", "careful", "kind")
    assert (config.gates is not None and config.gates.min_reward_gain == 0.1) == (config.proxy == "mine")
    assert (config.servers is not None) == (config.proxy == "kind")
    assert [term.sources for term in config.rewards][1:] == [("hh_helpful",)] * (config.proxy == "careful")


def test_an_unknown_command_or_flag_is_noticed() -> None:
    assert unknown_in(["proxies", "show", "helpful@1"]) is None
    assert unknown_in(["proxies", "list-all"]) == "list-all"
    assert unknown_in(["reward", "--train", "pairs.jsonl", "--halves", "reward"]) == "--halves"


def test_every_setting_of_the_server_is_listed_with_its_default() -> None:
    table = (REPOSITORY / "docs" / "operating.md").read_text().split("## All settings")[1]
    listed: dict[str, str | None] = {}
    for row in re.findall(r"^\| (`.*?)\|(.*?)\|", table, re.MULTILINE):
        names, defaults = (re.findall(r"`([^`]+)`", cell) for cell in row)
        listed |= dict(zip(names, defaults if len(defaults) == len(names) else [None] * len(names), strict=True))

    assert sorted(listed) == sorted(name.upper() for name in setting_names())
    for name, default in listed.items():
        if default is not None and name != "HOME":
            assert str(getattr(Settings(), name.lower())).lower().removesuffix(".0") == default, name


def test_every_setting_but_the_secrets_is_a_flag() -> None:
    flags = [name for name in setting_names() if unknown_in(["serve", "--" + name.replace("_", "-")]) is None]

    assert set(setting_names()) - set(flags) == {"api_keys", "admin_key", "store_url"}
