from pathlib import Path

import pytest

from proxy_model.errors import InvalidParameter
from trainer.service.settings import Settings, load_settings


def test_flags_win_over_the_environment_and_that_over_the_defaults(tmp_path: Path) -> None:
    environment = {"PROXY_RLHF_HOME": str(tmp_path), "PROXY_RLHF_TRAINER_PORT": "9001", "PROXY_RLHF_TRAINER_NICE": "4"}

    settings = load_settings(environment, {"port": 9002, "threads": None})

    assert settings == Settings(home=tmp_path, port=9002, nice=4, threads=1, job=None)


def test_a_job_in_the_environment_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.touch()

    assert load_settings({"PROXY_RLHF_TRAINER_JOB": str(path)}, {}).job == path
    assert load_settings({"PROXY_RLHF_TRAINER_JOB": ""}, {}).job is None
    with pytest.raises(InvalidParameter, match="job"):
        load_settings({"PROXY_RLHF_TRAINER_JOB": str(tmp_path / "other.toml")}, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "http"),
        ("THREADS", "0"),
        ("NICE", "-1"),  # above everyone else
        ("NICE", "20"),
        ("STOP_SECONDS", "-0.5"),
        ("SERVER_METRICS", "server:8000/metrics"),
        ("BUSY_SHARE", "0"),
        ("BUSY_SHARE", "1.5"),
        ("LOG_LEVEL", "loud"),
        ("THREAD", "2"),  # misspelled
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        load_settings({f"PROXY_RLHF_TRAINER_{name}": value}, {})

    assert name in refused.value.name.upper()


def test_the_server_s_variables_are_none_of_its_business() -> None:
    assert load_settings({"PROXY_RLHF_PORT": "1", "PROXY_RLHF_API_KEYS": "secret"}, {}) == load_settings({}, {})
