"""Fine-tuning jobs, in either database: every transition, leases, and what is noted of them."""

import io
import threading
import time
from collections.abc import Callable

import pytest

from store.database import Database
from store.files import Files
from store.fine_tuning.jobs import IllegalTransition, Job, JobError, Jobs, NoSuchFile, Order, ProxyTaken, Status
from store.fine_tuning.journal import Journal
from store.fine_tuning.needed_versions import needed_versions
from store.fine_tuning.queue import MAX_TAKEOVERS, JobQueue, Lease, LeaseLost
from store.page import Page
from tests.store.rows import MINE, YOURS

LONG = 60.0
BAD = JobError(code="invalid_training_file", message="line 3: no answer", param="training_file")
ALL: tuple[Status, ...] = ("validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled")


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def queue(database: Database) -> JobQueue:
    return JobQueue(database)


@pytest.fixture
def journal(database: Database) -> Journal:
    return Journal(database)


@pytest.fixture
def order(database: Database) -> Callable[..., Order]:
    """An order of one's own, with its file."""

    def make(owner: str = MINE, proxy: str = "polite", **changed: object) -> Order:
        file = Files(database).add(owner, "a.jsonl", "fine-tune", io.BytesIO(b"{}"))
        values = {"owner": owner, "proxy": proxy, "training_file": file.id, "specification": {"seed": 3}}
        return Order(**{"metadata": {}, **values, **changed})  # type: ignore[arg-type]

    return make


@pytest.fixture
def queued(jobs: Jobs, queue: JobQueue, order: Callable[..., Order]) -> Callable[..., Job]:
    """A job whose files are good."""

    def make(**changed: object) -> Job:
        job = jobs.create(order(**changed))
        assert queue.accept(job.id, "20 lines")
        return job

    return make


def taken(queue: JobQueue, worker: str = "w1", seconds: float = LONG) -> Lease:
    lease = queue.take(worker, seconds)
    assert lease is not None
    return lease


def status_of(jobs: Jobs, job: Job) -> Status:
    found = jobs.get(job.owner, job.id)
    assert found is not None
    return found.status


def brought_to(status: Status, jobs: Jobs, queue: JobQueue, job: Job) -> Job:
    """The new `job` as one of `status`."""
    if status == "paused":
        jobs.pause(job.owner, job.id)
    elif status == "cancelled":
        jobs.cancel(job.owner, job.id)
    elif status != "validating_files":
        queue.accept(job.id, "20 lines")
        if status != "queued":
            lease = taken(queue)
            if status == "succeeded":
                queue.succeed(lease, "tiny:polite", 10)
            if status == "failed":
                queue.fail(lease, BAD)
    assert status_of(jobs, job) == status
    return job


def messages(journal: Journal, job: Job) -> list[str]:
    return [event.message for event in journal.events(job.id, Page(limit=100))[0]]


def test_a_job_goes_from_its_order_to_its_model(
    jobs: Jobs, queue: JobQueue, journal: Journal, order: Callable[..., Order]
) -> None:
    job = jobs.create(order(metadata={"team": "a"}))
    assert (job.status, job.specification, job.metadata, job.step) == (
        "validating_files",
        {"seed": 3},
        {"team": "a"},
        0,
    )
    unvalidated = queue.unvalidated()
    assert unvalidated is not None
    assert unvalidated.id == job.id
    assert queue.take("w1", LONG) is None

    queue.accept(job.id, "20 lines")
    lease = taken(queue)
    assert queue.record(lease, 1, {"reward": 0.5}, estimated_finish=77)
    running = jobs.get(MINE, job.id)
    queue.record_checkpoint(lease, 1, "tiny:polite@1", {"reward": 0.5})
    queue.succeed(lease, "tiny:polite", 1234, ("file-9",))

    assert running is not None
    assert (running.status, running.step, running.estimated_finish) == ("running", 1, 77)
    done = jobs.get(MINE, job.id)
    assert done is not None
    assert (done.status, done.fine_tuned_model, done.trained_tokens) == ("succeeded", "tiny:polite", 1234)
    assert (done.result_files, done.worker, done.lease_until, done.estimated_finish) == (("file-9",), None, None, None)
    assert done.finished_at is not None
    assert messages(journal, job)[2:] == [
        "20 lines",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        "Step 1",
        "Checkpoint created at step 1: tiny:polite@1",
        "New fine-tuned model created: tiny:polite",
        "The job has successfully completed",
    ]
    assert queue.take("w1", LONG) is None


@pytest.mark.parametrize("status", ALL)
@pytest.mark.parametrize(
    ("act", "allowed", "after"),
    [
        ("cancel", ("validating_files", "queued", "running", "paused"), "cancelled"),
        ("pause", ("validating_files", "queued", "running"), "paused"),
        ("resume", ("paused",), "validating_files"),  # it was paused before anybody looked at its files
    ],
)
def test_callers_may_do_what_the_status_allows_and_nothing_else(
    jobs: Jobs,
    queue: JobQueue,
    order: Callable[..., Order],
    status: Status,
    act: str,
    allowed: tuple[str, ...],
    after: str,
) -> None:
    job = brought_to(status, jobs, queue, jobs.create(order()))

    assert getattr(jobs, act)(YOURS, job.id) is None
    if status in allowed:
        assert getattr(jobs, act)(MINE, job.id).status == after
    else:
        with pytest.raises(IllegalTransition) as refused:
            getattr(jobs, act)(MINE, job.id)
        assert refused.value.status == status
        assert status_of(jobs, job) == status


def test_a_job_paused_while_it_ran_is_queued_again(jobs: Jobs, queue: JobQueue, queued: Callable[..., Job]) -> None:
    job = queued()
    lease = taken(queue)
    queue.record(lease, 3, {})

    jobs.pause(MINE, job.id)
    assert queue.take("w2", LONG) is None
    resumed = jobs.resume(MINE, job.id)

    assert resumed is not None
    assert (resumed.status, resumed.step) == ("queued", 3)
    assert taken(queue, "w2").job.id == job.id


@pytest.mark.parametrize("act", ["cancel", "pause", "take over"])
def test_who_lost_a_job_can_say_nothing_about_it(
    jobs: Jobs, queue: JobQueue, journal: Journal, queued: Callable[..., Job], act: str
) -> None:
    job = queued()
    lease = taken(queue, seconds=LONG if act != "take over" else 0.01)
    if act == "take over":
        time.sleep(0.02)
        taken(queue, "w2")
    else:
        getattr(jobs, act)(MINE, job.id)
    before = (jobs.get(MINE, job.id), messages(journal, job))

    for say in (
        lambda: queue.renew(lease, LONG),
        lambda: queue.release(lease),
        lambda: queue.retry(lease, "again", 0),
        lambda: queue.record(lease, 1, {"reward": 1.0}),
        lambda: queue.record_checkpoint(lease, 1, "tiny:polite@1", {}),
        lambda: queue.note(lease, "careful"),
        lambda: queue.succeed(lease, "tiny:polite", 1),
        lambda: queue.fail(lease, BAD),
    ):
        with pytest.raises(LeaseLost):
            say()

    assert (jobs.get(MINE, job.id), messages(journal, job)) == before


def test_a_lease_that_is_renewed_is_not_taken_over(queue: JobQueue, queued: Callable[..., Job]) -> None:
    queued()
    lease = taken(queue, seconds=0.2)

    queue.renew(lease, LONG)
    time.sleep(0.25)

    assert queue.take("w2", LONG) is None


def test_the_oldest_job_comes_first_and_one_that_failed_waits(
    jobs: Jobs, queue: JobQueue, queued: Callable[..., Job]
) -> None:
    first, second = queued(), queued()
    lease = taken(queue)
    assert lease.job.id == first.id

    queue.retry(lease, "the disk is full", LONG)

    assert taken(queue).job.id == second.id
    assert queue.take("w1", LONG) is None
    assert status_of(jobs, first) == "queued"


def test_only_attempts_without_progress_count(jobs: Jobs, queue: JobQueue, queued: Callable[..., Job]) -> None:
    queued()
    for expected in (1, 2):
        lease = taken(queue)
        assert lease.job.attempts == expected
        queue.retry(lease, "again", 0)
    queue.release(taken(queue))
    lease = taken(queue)
    assert lease.job.attempts == 3

    queue.record(lease, 1, {})
    queue.retry(lease, "again", 0)

    assert taken(queue).job.attempts == 1


def test_a_job_that_ends_its_workers_ends(jobs: Jobs, queue: JobQueue, queued: Callable[..., Job]) -> None:
    job = queued()
    for _ in range(MAX_TAKEOVERS):
        taken(queue, seconds=0)

    assert queue.take("w1", LONG) is None

    found = jobs.get(MINE, job.id)
    assert found is not None
    assert found.error is not None
    assert (found.status, found.error.code) == ("failed", "worker_died")


def test_what_is_said_twice_is_noted_once(queue: JobQueue, journal: Journal, queued: Callable[..., Job]) -> None:
    job = queued()
    lease = taken(queue)

    assert queue.record(lease, 1, {"reward": 1.0})
    assert not queue.record(lease, 1, {"reward": 2.0})
    for _ in range(2):
        queue.record_checkpoint(lease, 1, "tiny:polite@4", {"reward": 1.0})

    events, _ = journal.events(job.id, Page(limit=100, order="desc"))
    assert [event.data for event in events if event.type == "metrics"] == [{"reward": 1.0}]
    checkpoints, has_more = journal.checkpoints(job.id, Page())
    assert [(each.step, each.model, each.metrics) for each in checkpoints] == [(1, "tiny:polite@4", {"reward": 1.0})]
    assert not has_more


def test_bad_files_end_a_job_once(jobs: Jobs, queue: JobQueue, journal: Journal, order: Callable[..., Order]) -> None:
    job = jobs.create(order())

    assert queue.reject(job.id, BAD)
    assert not queue.reject(job.id, BAD)
    assert not queue.accept(job.id, "20 lines")

    found = jobs.get(MINE, job.id)
    assert found is not None
    assert (found.status, found.error) == ("failed", BAD)
    assert messages(journal, job)[2:] == ["line 3: no answer"]


def test_a_file_must_be_the_owners_and_for_training(
    jobs: Jobs, database: Database, order: Callable[..., Order]
) -> None:
    yours = order(owner=YOURS).training_file
    other = Files(database).add(MINE, "a", "batch", io.BytesIO(b"{}")).id

    for changed, param in (
        ({"training_file": yours}, "training_file"),
        ({"training_file": other}, "training_file"),
        ({"validation_file": "file-0"}, "validation_file"),
    ):
        with pytest.raises(NoSuchFile) as refused:
            jobs.create(order(**changed))
        assert refused.value.param == param
    assert jobs.list(MINE, Page(), {}) == ([], False)


def test_a_proxy_is_who_named_it_first(jobs: Jobs, order: Callable[..., Order]) -> None:
    jobs.create(order(proxy="polite"))

    with pytest.raises(ProxyTaken):
        jobs.create(order(owner=YOURS, proxy="polite"))
    jobs.create(order(proxy="polite"))

    assert jobs.proxy_owner("polite") == MINE
    assert jobs.proxy_owner("other") is None
    assert len(jobs.list(MINE, Page(), {})[0]) == 2
    assert jobs.list(YOURS, Page(), {})[0] == []


@pytest.mark.parametrize("status", ALL)
def test_a_proxy_is_held_by_unfinished_jobs_that_train_it_or_start_from_it(
    status: Status, jobs: Jobs, queue: JobQueue, order: Callable[..., Order]
) -> None:
    specification = {"proxy": "a_b", "start": "from_c@12"}
    job = brought_to(status, jobs, queue, jobs.create(order(proxy="a_b", specification=specification)))
    is_unfinished = status not in ("succeeded", "failed", "cancelled")

    assert jobs.holding(MINE, "a_b") == (job.id if is_unfinished else None)
    held = [
        (proxy, version)
        for proxy, version in [("a_b", "3"), ("from_c", None), ("from_c", "12"), ("from_c", "1"), ("fromXc", None)]
        if jobs.holding(MINE, proxy, version)
    ]
    assert held == ([("a_b", "3"), ("from_c", None), ("from_c", "12")] if is_unfinished else [])
    assert jobs.holding(YOURS, "a_b") is None


def test_versions_are_needed_while_a_job_starts_from_them_and_as_checkpoints_for_ever(
    database: Database, jobs: Jobs, queue: JobQueue, queued: Callable[..., Job]
) -> None:
    queued(proxy="a_b", specification={"proxy": "a_b", "start": "a_b@3"})
    lease = taken(queue)
    for version in (4, 12):
        queue.record_checkpoint(lease, version, f"org/llm:7b:a_b@{version}", {})
    for model in ("tiny:axb@5", "tiny:a_b-too@6", "tiny:more-a_b@7"):
        queue.record_checkpoint(lease, 20, model, {})

    assert needed_versions(database, "a_b") == {3, 4, 12}

    jobs.cancel(MINE, lease.job.id)
    assert needed_versions(database, "a_b") == {4, 12}
    assert needed_versions(database, "nobody") == set()


def test_jobs_are_listed_by_label_and_counted_by_status(
    jobs: Jobs, queue: JobQueue, order: Callable[..., Order]
) -> None:
    first = jobs.create(order(metadata={"team": "a", "run": "1"}))
    jobs.create(order(metadata={"team": "b"}))
    queue.accept(first.id, "fine")

    assert [job.id for job in jobs.list(MINE, Page(), {"team": "a", "run": "1"})[0]] == [first.id]
    assert jobs.list(MINE, Page(), {"team": "a", "run": "2"})[0] == []
    assert jobs.counts() == {"queued": 1, "validating_files": 1}


def test_many_workers_never_have_one_job_twice(database: Database, queue: JobQueue, queued: Callable[..., Job]) -> None:
    names = {queued().id for _ in range(12)}
    leases: list[Lease] = []

    def work(worker: str) -> None:
        own = Database(database.url.render_as_string(hide_password=False), busy_seconds=30)
        while lease := JobQueue(own).take(worker, LONG):
            leases.append(lease)
        own.close()

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Postgres' SKIP LOCKED may end a worker early, while the others still have the rows that it saw.
    while lease := queue.take("last", LONG):
        leases.append(lease)
    assert len(leases) == 12
    assert {lease.job.id for lease in leases} == names


@pytest.mark.parametrize("status", ALL)
def test_an_unfinished_job_ends_with_its_training_file(
    database: Database, jobs: Jobs, queue: JobQueue, order: Callable[..., Order], status: Status
) -> None:
    job = brought_to(status, jobs, queue, jobs.create(order()))
    other = jobs.create(order())
    Files(database).delete(MINE, job.training_file)

    queue.fail_without_files()

    ended = jobs.get(MINE, job.id)
    assert ended is not None
    if status in ("succeeded", "failed", "cancelled"):
        assert (ended.status, ended.error) == (status, BAD if status == "failed" else None)
    else:
        assert ended.error is not None
        assert (ended.status, ended.error.code, ended.error.param) == ("failed", "training_file_gone", "training_file")
    assert status_of(jobs, other) == "validating_files"


def test_a_worker_loses_a_job_whose_validation_file_expires(
    database: Database,
    jobs: Jobs,
    queue: JobQueue,
    journal: Journal,
    queued: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = Files(database).add(MINE, "b.jsonl", "fine-tune", io.BytesIO(b"{}"), lifetime_seconds=3600)
    job = queued(validation_file=file.id)
    lease = taken(queue)
    assert file.expires_at is not None
    times = iter([file.expires_at - 1, file.expires_at])

    for is_left in (True, False):
        at = next(times)
        monkeypatch.setattr("store.files.now", lambda at=at: at)
        queue.fail_without_files()
        assert queue.holds(lease) == is_left

    ended = jobs.get(MINE, job.id)
    assert ended is not None
    assert ended.error is not None
    assert (ended.status, ended.error.code) == ("failed", "validation_file_gone")
    assert messages(journal, job)[-1] == "The validation file has been deleted or has expired."
