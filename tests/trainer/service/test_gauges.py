import re
from pathlib import Path

import pytest

from store.database import Database
from store.fine_tuning.jobs import Jobs
from tests.trainer.service.job_bench import Bench
from trainer.service.gauges import TrainingGauges
from trainer.service.job_census import JobCensus

METRICS_PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_documentation_names_every_series_of_the_trainer_and_no_other(bench: Bench) -> None:
    registry = TrainingGauges().registry
    registry.register(JobCensus(bench.jobs))
    exposed = {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}

    documented = set(re.findall(r"^\| `(proxy_training_\w+)`", METRICS_PAGE.read_text(encoding="utf-8"), re.MULTILINE))

    assert documented == {name for name in exposed if not name.startswith("process_")}


def test_jobs_are_counted_by_status_at_each_scrape(bench: Bench) -> None:
    gauges = TrainingGauges()
    gauges.registry.register(JobCensus(bench.jobs))
    bench.order()
    paused, _ = bench.order(), bench.order(content="{}")

    bench.jobs.pause("me", paused.id)

    found = dict(re.findall(r'^proxy_training_jobs{status="(\w+)"} (\S+)$', gauges.expose().decode(), re.MULTILINE))
    assert found == dict.fromkeys(("validating_files", "running", "succeeded", "cancelled"), "0.0") | dict.fromkeys(
        ("queued", "paused", "failed"), "1.0"
    )


def test_a_store_that_cannot_be_used_has_no_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "store.sqlite3").write_bytes(b"no database" * 100)
    database = Database(f"sqlite:///{tmp_path}/store.sqlite3")
    gauges = TrainingGauges()
    gauges.registry.register(JobCensus(Jobs(database)))

    exposed = gauges.expose().decode()

    assert "proxy_training_jobs{" not in exposed
    assert "proxy_training_state{" in exposed
    assert "the store cannot be used" in caplog.text
    database.close()
