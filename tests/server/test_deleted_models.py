"""DELETE /v1/models/{model} by the stock SDK: whose proxies it deletes, and which ones it must not."""

from collections.abc import Callable

import httpx
import openai
import pytest

from tests.server.conftest import RunningServer, eventually
from tests.server.fakes import publish
from tests.server.test_fine_tuning import MINE, YOURS, connect, order

Start = Callable[..., RunningServer]


def served(start: Start, num_versions: int = 2) -> RunningServer:
    """With a proxy `polite` that a job of the first key has made, the default `helpful`, and an operator's `shared`."""
    server = start(api_keys=(MINE, YOURS))
    with connect(server, MINE) as mine:
        mine.fine_tuning.jobs.cancel(order(mine, suffix="polite").id)
    for name in ["polite"] * num_versions + ["helpful", "shared"]:
        publish(server.proxies, server.llm, name)
    table = server.service.serving().reloader.table
    eventually(lambda: {"helpful", "shared"} <= set(table.names()) and str(table.resolve("polite")) == "polite@2")
    return server


def names(client: openai.OpenAI) -> set[str]:
    return {model.id for model in client.models.list()}


def ask(client: openai.OpenAI, model: str) -> str:
    message = {"role": "user", "content": "hello"}
    return client.chat.completions.create(model=model, messages=[message], max_tokens=2).model  # type: ignore[list-item]


def test_a_version_is_deleted_also_while_it_is_kept_for_who_asked_for_it(start: Start) -> None:
    server = served(start)
    with connect(server, MINE) as mine:
        ask(mine, "tiny:polite@1")

        deleted = mine.models.delete("tiny:polite@1")

        assert (deleted.id, deleted.object, deleted.deleted) == ("tiny:polite@1", "model", True)
        with pytest.raises(openai.NotFoundError):
            ask(mine, "tiny:polite@1")
        assert ask(mine, "tiny:polite") == "tiny:polite"
        assert "tiny:polite@1" not in names(mine)


def test_a_whole_proxy_is_deleted_and_its_name_stays_its_owners(start: Start) -> None:
    server = served(start)
    with connect(server, MINE) as mine, connect(server, YOURS) as yours:
        mine.models.delete("tiny:polite")

        assert not {name for name in names(mine) if "polite" in name}
        with pytest.raises(openai.NotFoundError):
            ask(mine, "tiny:polite")
        with pytest.raises(openai.NotFoundError):
            mine.models.delete("tiny:polite")
        with pytest.raises(openai.BadRequestError, match="not yours"):
            order(yours, suffix="polite")
        assert publish(server.proxies, server.llm, "polite").version == 3


@pytest.mark.parametrize(
    ("key", "model", "status", "code"),
    [
        (MINE, "tiny:polite@2", 409, "model_in_use"),  # it is stable
        (MINE, "tiny:polite@stable", 409, "model_in_use"),
        (MINE, "tiny:polite@7", 404, "model_not_found"),
        (YOURS, "tiny:polite", 403, "not_yours"),
        (MINE, "tiny:shared", 403, "not_yours"),  # an operator's
        (MINE, "tiny:helpful", 403, "not_yours"),
        (MINE, "tiny:nobody", 403, "not_yours"),
        (MINE, "tiny:base", 403, "not_yours"),
        (MINE, "tiny", 403, "not_yours"),
        (MINE, "gpt-4o", 404, "model_not_found"),
        ("sk-else", "tiny:polite@1", 401, "invalid_api_key"),
    ],
)
def test_what_others_rely_on_is_not_deleted(start: Start, key: str, model: str, status: int, code: str) -> None:
    server = served(start)
    before = sorted(str(path) for path in server.proxies.glob("*/*"))

    answer = httpx.delete(f"{server.url}/v1/models/{model}", headers={"authorization": f"Bearer {key}"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert sorted(str(path) for path in server.proxies.glob("*/*")) == before


def test_the_default_proxy_is_not_deleted_not_even_by_who_made_it(start: Start) -> None:
    server = start()
    with connect(server) as client:
        order(client, suffix="helpful")
        publish(server.proxies, server.llm, "helpful")

        with pytest.raises(openai.ConflictError) as refused:
            client.models.delete("tiny:helpful")

    assert refused.value.code == "model_in_use"


def test_a_proxy_is_not_deleted_while_a_job_trains_it(start: Start) -> None:
    server = served(start)
    with connect(server, MINE) as mine:
        job = order(mine, suffix="polite")
        mine.fine_tuning.jobs.pause(job.id)

        for model in ("tiny:polite", "tiny:polite@1"):
            with pytest.raises(openai.ConflictError, match=job.id) as refused:
                mine.models.delete(model)
            assert (refused.value.code, refused.value.param) == ("model_in_use", "model")

        assert ask(mine, "tiny:polite@1") == "tiny:polite@1"
        mine.fine_tuning.jobs.cancel(job.id)
        mine.models.delete("tiny:polite")
        assert server.proxies.joinpath("polite", "1").exists() is False


def test_a_version_is_not_deleted_while_a_job_starts_from_it(start: Start) -> None:
    server = served(start)
    with connect(server, MINE) as mine, connect(server, YOURS) as yours:
        order(yours, model="tiny:polite@1", suffix="theirs")
        order(mine, model="tiny:polite", suffix="polite-too")  # which is polite@2

        with pytest.raises(openai.ConflictError):
            mine.models.delete("tiny:polite")

        assert mine.models.delete("tiny:polite@1").deleted  # another key's job holds nothing of one's own
