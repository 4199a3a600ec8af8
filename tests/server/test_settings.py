"""A start that cannot work, or would be open to strangers, is refused."""

from pathlib import Path
from typing import Any

import pytest

from proxy_model.errors import InvalidParameter
from server.settings import Settings, load_settings


def test_flags_win_over_the_environment_and_that_over_defaults(tmp_path: Path) -> None:
    environment = {"PROXY_RLHF_PORT": "9000", "PROXY_RLHF_HOME": str(tmp_path), "PROXY_RLHF_STRICT": "true"}

    settings = load_settings(environment, {"port": 9001, "host": None})

    assert (settings.port, settings.host, settings.home, settings.strict) == (9001, "127.0.0.1", tmp_path, True)


def test_keys_come_from_a_list_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "admin").write_text("admin-key-1\n")
    environment = {
        "PROXY_RLHF_API_KEYS": "sk-one-111, sk-two-222",
        "PROXY_RLHF_ADMIN_KEY_FILE": str(tmp_path / "admin"),
    }

    settings = load_settings(environment, {})

    assert settings.api_keys == ("sk-one-111", "sk-two-222")
    assert settings.admin_key_file == tmp_path / "admin"
    assert "sk-one" not in repr(settings)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"host": "0.0.0.0"}, "host"),
        ({"host": "example.org"}, "host"),
        ({"port": 70000}, "port"),
        ({"max_running": 0}, "max_running"),
        ({"max_waiting": -1}, "max_waiting"),
        ({"threads": 0}, "threads"),
        ({"reload_seconds": 0.0}, "reload_seconds"),
        ({"drain_seconds": float("nan")}, "drain_seconds"),
        ({"api_keys": ("short",)}, "api_keys"),
        ({"admin_key": "short"}, "admin_key"),
        ({"port": 9000, "metrics_port": 9000}, "metrics_port"),
        ({"metrics_port": -1}, "metrics_port"),
        ({"api_keys": ("sk-one-111",), "admin_key": "sk-one-111"}, "admin_key"),
        ({"default_proxy": "../x"}, "default_proxy"),
        ({"log_level": "loud"}, "log_level"),
        ({"store_days": -1.0}, "store_days"),
        ({"store_url": "mysql://root:sk-one@db/x"}, "store_url"),
    ],
)
def test_a_bad_start_is_refused_by_name(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        Settings(**fields)

    assert refused.value.name == name
    assert "sk-one" not in str(refused.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_needs_no_key(host: str) -> None:
    assert Settings(host=host).api_keys == ()


def test_with_a_key_every_address_is_fine() -> None:
    assert Settings(host="0.0.0.0", api_keys=("sk-one-111",)).host == "0.0.0.0"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROXY_RLHF_API_KEY", "sk-one-111"),
        ("PROXY_RLHF_PORT", "many"),
        ("PROXY_RLHF_STRICT", "perhaps"),
        ("PROXY_RLHF_API_KEYS_FIL", "/nowhere"),
    ],
)
def test_a_mistake_in_the_environment_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        load_settings({name: value}, {})

    assert refused.value.name == name


def test_variables_of_other_rooms_pass() -> None:
    assert load_settings({"PROXY_RLHF_LLM_WHEEL": "x", "PROXY_RLHF_TRAINER_PORT": "y"}, {}) == Settings()
