"""/v1/fine_tuning/jobs by the stock SDK: orders, what is refused, and what each owner sees. Nobody trains here."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from proxy_model.paths import store_file
from store.database import Database
from store.fine_tuning.jobs import JobError
from store.fine_tuning.queue import JobQueue
from tests.server.conftest import RunningServer, eventually
from tests.server.fakes import publish

Start = Callable[..., RunningServer]
MINE, YOURS = "sk-mine-1111", "sk-yours-2222"
GRADER = {"type": "reward_model", "name": "calm", "model": "helpful"}
METHOD: Any = {"type": "reinforcement", "reinforcement": {"grader": GRADER}}
GATES = {"judge": "judges/helpful", "min_reward_gain": -0.1}


def connect(server: RunningServer, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with connect(server) as client:
        yield client


@pytest.fixture
def queue(server: RunningServer) -> Iterator[JobQueue]:
    """The trainer's side of the same store."""
    database = Database(f"sqlite:///{store_file(server.service.settings.home)}")
    yield JobQueue(database)
    database.close()


def upload(client: openai.OpenAI) -> str:
    return client.files.create(file=("a.jsonl", b"{}\n"), purpose="fine-tune").id


def order(client: openai.OpenAI, **changed: Any) -> Any:
    values = {"model": "tiny", "training_file": upload(client), "method": METHOD} | changed
    return client.fine_tuning.jobs.create(**values)


def test_an_order_is_kept_as_openai_shows_it(client: openai.OpenAI) -> None:
    method = {"type": "reinforcement", "reinforcement": {"grader": GRADER, "hyperparameters": {"batch_size": 8}}}
    job = order(client, method=method, suffix="polite", seed=7, metadata={"team": "a"})

    assert (job.object, job.status, job.model, job.seed) == ("fine_tuning.job", "validating_files", "tiny", 7)
    assert (job.fine_tuned_model, job.finished_at, job.error, job.trained_tokens) == (None, None, None, None)
    assert (job.hyperparameters.batch_size, job.hyperparameters.n_epochs) == (8, "auto")
    assert (job.metadata, job.result_files, job.integrations) == ({"team": "a"}, [], [])
    assert job.method.reinforcement.grader.model == "helpful"
    assert job.proxy == {"name": "polite", "alias": "stable"}
    assert client.fine_tuning.jobs.retrieve(job.id) == job
    events = client.fine_tuning.jobs.list_events(job.id).data
    assert [event.message for event in events] == [
        f"Validating training file: {job.training_file}",
        f"Created fine-tuning job: {job.id}",
    ]
    assert client.fine_tuning.jobs.checkpoints.list(job.id).data == []


def test_the_gates_of_a_job_are_shown_as_they_will_be_asked(client: openai.OpenAI) -> None:
    held_out = upload(client)

    job = order(client, validation_file=held_out, extra_body={"gates": GATES})

    assert job.validation_file == held_out
    assert job.gates == {"judge": "judges/helpful", "num_prompts": 64, "max_tokens": 64, "min_reward_gain": -0.1}
    assert order(client).gates is None


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, {"num_prompts": 64, "max_tokens": 64}),  # the grader scores the answers
        (
            {"method": {"type": "dpo"}, "extra_body": {"gates": {"judge": "helpful", "num_prompts": 9}}},
            {"judge": "helpful", "num_prompts": 9, "max_tokens": 64},
        ),
    ],
)
def test_a_validation_file_may_be_looked_at_without_limits(
    client: openai.OpenAI, given: dict[str, Any], shown: dict[str, Any]
) -> None:
    assert order(client, validation_file=upload(client), **given).gates == shown


@pytest.mark.parametrize("kind", ["supervised", "dpo"])
def test_methods_without_a_grader_are_shown_as_openais(client: openai.OpenAI, kind: str) -> None:
    given: Any = {"type": kind, kind: {"hyperparameters": {"n_epochs": 3, "batch_size": "auto"}}}

    job = order(client, method=given)

    assert job.method.type == kind
    shown = getattr(job.method, kind).hyperparameters
    assert (shown.n_epochs, shown.batch_size, shown.learning_rate_multiplier) == (3, "auto", "auto")
    assert order(client, method={"type": kind}).hyperparameters.n_epochs == "auto"


@pytest.mark.parametrize("given", [{}, {"hyperparameters": {"n_epochs": 3, "learning_rate_multiplier": 0.5}}])
def test_without_a_method_a_job_is_supervised_as_at_openai(client: openai.OpenAI, given: dict[str, Any]) -> None:
    job = client.fine_tuning.jobs.create(model="tiny", training_file=upload(client), **given)

    assert job.method is not None
    assert job.method.type == "supervised"
    assert job.hyperparameters.n_epochs == (3 if given else "auto")
    assert job.hyperparameters.learning_rate_multiplier == (0.5 if given else "auto")


def test_a_job_without_a_suffix_has_a_proxy_of_its_own(client: openai.OpenAI) -> None:
    first, second = order(client), order(client)

    assert first.proxy["name"].startswith("ft-")
    assert first.proxy["name"] != second.proxy["name"]


def test_jobs_are_cancelled_paused_and_resumed(client: openai.OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    job = order(client)

    assert jobs.pause(job.id).status == "paused"  # type: ignore[comparison-overlap]
    assert jobs.resume(job.id).status == "validating_files"
    cancelled = jobs.cancel(job.id)

    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    for act in (jobs.cancel, jobs.pause, jobs.resume):
        with pytest.raises(openai.BadRequestError, match="its status is 'cancelled'"):
            act(job.id)
        with pytest.raises(openai.NotFoundError, match="no fine-tuning job"):
            act("ftjob-0")


def test_what_the_trainer_says_is_shown(client: openai.OpenAI, queue: JobQueue) -> None:
    done, bad = order(client, suffix="polite"), order(client)
    queue.accept(done.id, "12 rows")
    queue.reject(bad.id, JobError(code="invalid_training_file", message="line 1: no JSON", param="training_file"))
    lease = queue.take("w", 60)
    assert lease is not None
    queue.record(lease, 1, {"reward/raw_mean": 0.5}, estimated_finish=2_000_000_000_000_000)
    running = client.fine_tuning.jobs.retrieve(done.id)
    queue.record_checkpoint(lease, 1, "tiny:polite@1", {"reward/raw_mean": 0.5})
    queue.succeed(lease, "tiny:polite", 99)

    assert (running.status, running.estimated_finish) == ("running", 2_000_000_000)
    shown = client.fine_tuning.jobs.retrieve(done.id)
    assert (shown.status, shown.fine_tuned_model, shown.trained_tokens) == ("succeeded", "tiny:polite", 99)
    error = client.fine_tuning.jobs.retrieve(bad.id).error
    assert error is not None
    assert (error.code, error.message, error.param) == ("invalid_training_file", "line 1: no JSON", "training_file")
    metrics = [event for event in client.fine_tuning.jobs.list_events(done.id, limit=3) if event.type == "metrics"]
    assert [(event.data, event.level) for event in metrics] == [({"reward/raw_mean": 0.5}, "info")]
    checkpoints = client.fine_tuning.jobs.checkpoints.list(done.id).data
    assert [(each.step_number, each.fine_tuned_model_checkpoint) for each in checkpoints] == [(1, "tiny:polite@1")]
    assert checkpoints[0].fine_tuning_job_id == done.id


def test_a_model_answers_once_its_job_is_said_to_have_succeeded(start: Start) -> None:
    """The server would not have looked for an hour; version 1 was there before, version 2 is the job's."""
    server = start()
    publish(server.proxies, server.llm, "polite")
    eventually(lambda: "polite" in server.service.serving().reloader.table.names())
    hourly = start(reload_seconds=3600.0)
    with connect(hourly) as client:
        job = order(client, suffix="polite")
        database = Database(f"sqlite:///{store_file(hourly.service.settings.home)}")
        queue = JobQueue(database)
        queue.accept(job.id, "12 rows")
        lease = queue.take("w", 60)
        assert lease is not None
        publish(hourly.proxies, hourly.llm, "polite")
        queue.succeed(lease, "tiny:polite", 9)
        database.close()

        assert str(hourly.service.serving().reloader.table.resolve("polite")) == "polite@1"
        assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"

    assert str(hourly.service.serving().reloader.table.resolve("polite")) == "polite@2"


def test_jobs_are_listed_newest_first_in_pages_and_by_label(client: openai.OpenAI) -> None:
    names = [order(client, metadata={"n": str(number % 2)}).id for number in range(3)]

    assert [job.id for job in client.fine_tuning.jobs.list(limit=2)] == names[::-1]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"n": "0"})] == [names[2], names[0]]


def test_jobs_are_their_keys_own(start: Start) -> None:
    server = start(api_keys=(MINE, YOURS))
    mine, yours = connect(server, MINE), connect(server, YOURS)
    job = order(mine, suffix="polite")

    jobs = yours.fine_tuning.jobs
    for call in (jobs.retrieve, jobs.cancel, jobs.pause, jobs.resume, jobs.list_events, jobs.checkpoints.list):
        with pytest.raises(openai.NotFoundError):
            call(job.id)
    assert list(jobs.list()) == []
    with pytest.raises(openai.BadRequestError, match="not yours"):
        order(yours, suffix="polite")
    with pytest.raises(openai.BadRequestError, match="no file of the id in 'training_file'"):
        order(yours, training_file=job.training_file)
    assert mine.fine_tuning.jobs.retrieve(job.id).status == "validating_files"
    mine.close()
    yours.close()


def test_no_key_trains_a_proxy_over_that_all_rely_on(start: Start) -> None:
    server = start(api_keys=(MINE,))
    publish(server.proxies, server.llm, "shared")
    client = connect(server, MINE)

    for name in ("helpful", "shared"):  # the default proxy, and one that an operator published
        with pytest.raises(openai.BadRequestError) as refused:
            order(client, suffix=name)
        assert refused.value.code == "suffix_taken"
    client.close()


def test_training_may_start_from_a_served_proxy(start: Start) -> None:
    server = start()
    publish(server.proxies, server.llm, "shared")
    eventually(lambda: "shared" in server.service.serving().reloader.table.names())
    with connect(server) as client:
        job = order(client, model="tiny:shared")

        assert job.model == "tiny:shared@1"
        for model in ("tiny:shared@2", "tiny:shared@canary"):
            with pytest.raises(openai.BadRequestError, match=r"does not exist; there is tiny:shared@1\.") as refused:
                order(client, model=model)
            assert refused.value.code == "model_not_available"


def test_prompts_that_are_learnt_from_are_no_validation_file(client: openai.OpenAI) -> None:
    file = upload(client)

    with pytest.raises(openai.BadRequestError, match="another file than 'training_file'") as refused:
        order(client, training_file=file, validation_file=file)

    assert refused.value.param == "validation_file"


@pytest.mark.parametrize(
    ("changed", "param", "said"),
    [
        (
            {"model": "gpt-4o"},
            "model",
            "Model gpt-4o is not available for fine-tuning or does not exist; there is tiny.",
        ),
        ({"model": "tiny:nobody"}, "model", "there is tiny."),
        ({"model": "tiny:base@1"}, "model", "there is tiny."),
        ({"training_file": "file-0"}, "training_file", "no file of the id"),
        ({"method": {"type": "magic"}}, "method.type", "supervised"),
        (
            {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0}}}},
            "method.dpo.hyperparameters.beta",
            "[0.001, 1000]",
        ),
        (
            {"method": {"type": "reinforcement", "reinforcement": {"grader": {"type": "python", "source": "x"}}}},
            "method.reinforcement.grader.type",
            "string_check",
        ),
        (
            {"method": {**METHOD, "reinforcement": {"grader": {**GRADER, "model": "../helpful"}}}},
            "method.reinforcement.grader.model",
            "the name of a reward model",
        ),
        (
            {"method": {**METHOD, "reinforcement": {"grader": GRADER, "hyperparameters": {"n_epochs": 99}}}},
            "method.reinforcement.hyperparameters.n_epochs",
            "[1, 50]",
        ),
        ({"suffix": "My Proxy"}, "suffix", "a-z"),
        ({"seed": 2**31}, "seed", "2147483647"),
        ({"validation_file": "file-0"}, "validation_file", "no file of the id"),
        ({"validation_file": "file-0", "method": {"type": "dpo"}}, "gates.judge", "given with dpo"),
        ({"validation_file": "file-0", "gates": GATES}, "validation_file", "no file of the id"),
        ({"gates": GATES}, "validation_file", "Missing required parameter"),
        ({"validation_file": "file-0", "gates": {**GATES, "judge": "../helpful"}}, "gates.judge", "'helpful'"),
        ({"validation_file": "file-0", "gates": {"judge": "helpful"}}, "gates.judge", "'judges/helpful'"),
        ({"validation_file": "file-0", "gates": {"max_kl": 1}}, "gates.judge", "to have limits"),
        ({"validation_file": "file-0", "gates": {**GATES, "max_kl": "x"}}, "gates.max_kl", "[0, 1000]"),
        ({"validation_file": "file-0", "gates": "strict"}, "gates", "an object"),
        ({"hyperparameters": {"n_epochs": 1}}, "hyperparameters", "inside of 'method'"),
        ({"method": None, "hyperparameters": {"n_epochs": 99}}, "hyperparameters.n_epochs", "[1, 50]"),
        ({"method": None, "hyperparameters": {"beta": 1}}, "hyperparameters.beta", "left out"),
        ({"integrations": [{"type": "wandb"}]}, "integrations", "not supported"),
        ({"colour": "red"}, "colour", "Unknown parameter"),
        ({"proxy": {"alias": "Best"}}, "proxy.alias", "a-z"),
        ({"metadata": {"x": 1}}, "metadata.x", "string"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    server: RunningServer, client: openai.OpenAI, changed: dict[str, Any], param: str, said: str
) -> None:
    body = {"model": "tiny", "training_file": upload(client), "method": METHOD} | changed

    answer = httpx.post(f"{server.url}/v1/fine_tuning/jobs", json=body)

    assert answer.status_code in (400, 404)
    error = answer.json()["error"]
    assert error["param"] == param, error
    assert said in error["message"]
    assert httpx.get(f"{server.url}/v1/fine_tuning/jobs").json()["data"] == []
