"""Prometheus takes its configuration and its rules, and every alert fires when it should and not before."""

import subprocess

import yaml

from tests.monitoring.prometheus_tools import find_tool
from tests.monitoring.provisioned import PROMETHEUS, RULES, rules

UNIT_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


def promtool(*arguments: str) -> tuple[int, str]:
    """Its exit code and what it says."""
    done = subprocess.run([find_tool("promtool"), *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_the_configuration_and_the_rules_are_valid() -> None:
    config, about_config = promtool("check", "config", "--syntax-only", str(PROMETHEUS / "prometheus.yml"))
    checked, about_rules = promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES))

    assert config == 0, about_config
    assert checked == 0, about_rules
    assert about_rules.count("SUCCESS: ") == len(RULES) > 0


def test_the_alerts_unit_tests_pass() -> None:
    tested, about_tests = promtool("test", "rules", *map(str, UNIT_TESTS))

    assert tested == 0, about_tests
    assert about_tests.count("SUCCESS") == len(UNIT_TESTS) > 0


def test_every_alert_is_seen_to_fire_in_a_unit_test() -> None:
    cases = [
        case
        for path in UNIT_TESTS
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
        for case in test["alert_rule_test"]
    ]

    fired = {case["alertname"] for case in cases if case["exp_alerts"]}

    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


def test_every_alert_says_how_bad_it_is_and_what_is_wrong() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning"), rule
            assert "{{" in rule["annotations"]["summary"], rule


def test_prometheus_scrapes_the_services_by_their_names() -> None:
    """The server has its metrics on a port of their own in compose, where they need no key."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))

    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}

    assert targets["server"] == ["server:8000"]
    assert targets["trainer"] == ["trainer:8001"]
