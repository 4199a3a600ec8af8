"""A refused version costs one line in the log and a few words in memory, however long an alias names it."""

import gc
from pathlib import Path

from proxy_model.errors import BadCheckpoint
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.aliases import Aliases
from proxy_model.versions.registry import ProxyRegistry
from server.proxies.publications import look
from tests.server.conftest import RunningServer, eventually
from tests.server.fakes import publish
from tests.server.test_reload import publish_broken, serves


class PublishedMeanwhile(ProxyRegistry):
    """Somebody publishes just before the aliases are read."""

    def __init__(self, root: Path, llm: FrozenLLM) -> None:
        super().__init__(root)
        self._llm = llm

    def aliases(self, name: str) -> Aliases:
        publish(self.root, self._llm, name)
        return super().aliases(name)


def test_a_look_in_the_middle_of_a_publication_sees_whatever_its_aliases_name(tmp_path: Path, llm: FrozenLLM) -> None:
    publish(tmp_path, llm)

    published = look(PublishedMeanwhile(tmp_path, llm))

    assert published is not None
    assert published["helpful"].aliases == {"stable": 2}
    assert list(published["helpful"].versions) == [1, 2]


def test_a_refusal_keeps_nothing_alive_but_its_words(server: RunningServer) -> None:
    def errors() -> list[object]:
        gc.collect()
        return [found for found in gc.get_objects() if issubclass(type(found), BadCheckpoint)]

    before = errors()  # of other tests' parameters
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, 1))
    version = publish_broken(server, "tampered").version

    eventually(lambda: server.service.serving().reloader.refusals("helpful").keys() == {version})

    # An exception would keep what its traceback has seen, the bytes of the weights among it.
    eventually(lambda: len(errors()) == len(before), "an end of the exception")
    assert server.service.serving().reloader.refusals("helpful")[version]
