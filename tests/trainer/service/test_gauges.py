import re
from pathlib import Path

from trainer.metrics import METRICS
from trainer.service.gauges import TrainingGauges, series_name

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"


def recorded(proxy: str) -> TrainingGauges:
    gauges = TrainingGauges()
    gauges.begin(proxy)
    gauges.record({name: float(number) for number, name in enumerate(METRICS)}, num_alarms=2)
    return gauges


def test_each_metric_has_a_series_of_its_own_with_its_own_value() -> None:
    exposed = recorded("calm").expose().decode()

    for number, name in enumerate(METRICS):
        assert f'\n{series_name(name)}{{proxy="calm"}} {float(number)}\n' in exposed
    assert '\nproxy_training_alarms{proxy="calm"} 2.0\n' in exposed


def test_the_document_lists_every_series_with_its_meaning_and_no_other() -> None:
    rows = re.findall(r"^\| `(proxy_training_\w+)` \| \w+ \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    exposed = set(re.findall(r"^(proxy_training_\w+)[{ ]", recorded("calm").expose().decode(), re.MULTILINE))

    assert {name for name, _ in rows} == {name for name in exposed if not name.endswith("_created")}
    assert {series_name(name): text for name, text in METRICS.items()}.items() <= dict(rows).items()


def test_another_proxy_s_run_ends_the_series_of_the_one_before() -> None:
    gauges = recorded("calm")

    gauges.begin("kind")

    exposed = gauges.expose().decode()
    assert "calm" not in exposed
    assert 'proxy_training_iterations_total{proxy="kind"} 0.0' in exposed
    assert "proxy_training_reward_raw_mean{" not in exposed


def test_the_next_run_of_the_same_proxy_counts_on() -> None:
    gauges = recorded("calm")

    gauges.begin("calm")
    gauges.count_version()

    exposed = gauges.expose().decode()
    assert 'proxy_training_iterations_total{proxy="calm"} 1.0' in exposed
    assert 'proxy_training_published_versions_total{proxy="calm"} 1.0' in exposed


def test_the_service_is_in_one_state_at_a_time() -> None:
    gauges = TrainingGauges()
    gauges.set_state("training")

    exposed = gauges.expose().decode()

    states = dict(re.findall(r'^proxy_training_state{state="(\w+)"} (\S+)$', exposed, re.MULTILINE))
    assert states == {"waiting": "0.0", "training": "1.0", "failing": "0.0", "stopping": "0.0"}
