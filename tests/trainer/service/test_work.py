from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.trainer.runs import small_config
from trainer.service.work import InTurn, Work


@dataclass
class Source:
    """Hands out what it has, one after the other; raises what is an error."""

    has: list[Work | Exception | None]
    finished: list[Work] = field(default_factory=list)

    def next_work(self) -> Work | None:
        found = self.has.pop(0) if self.has else None
        if isinstance(found, Exception):
            raise found
        return found

    def finish(self, work: Work) -> None:
        self.finished.append(work)


def work(name: str) -> Work:
    return Work(config=small_config(Path(name), iterations=1), is_resumed=False)


def test_sources_with_work_take_turns_and_each_is_told_of_its_own() -> None:
    first, second = Source([work("a"), work("b"), work("c")]), Source([None, work("d")])
    sources = InTurn([first, second])

    given = []
    while (found := sources.next_work()) is not None:
        given.append(found.config.output.name)
        sources.finish(found)

    assert given == ["a", "b", "d", "c"]
    assert [each.config.output.name for each in first.finished] == ["a", "b", "c"]
    assert [each.config.output.name for each in second.finished] == ["d"]


def test_a_source_that_fails_does_not_keep_the_next_from_being_asked() -> None:
    sources = InTurn([Source([OSError("gone"), OSError("gone")]), Source([work("a")])])

    with pytest.raises(OSError, match="gone"):
        sources.next_work()
    found = sources.next_work()

    assert found is not None
    assert found.config.output.name == "a"


def test_without_sources_there_is_nothing_to_do() -> None:
    assert InTurn([]).next_work() is None
