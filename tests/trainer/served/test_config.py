from dataclasses import replace
from pathlib import Path

import pytest

from proxy_model.errors import InvalidParameter
from tests.trainer.runs import parts_in_miniature, small_config
from trainer.config import ProxyShape, TrainConfig
from trainer.config_file import config_from_mapping, config_to_mapping
from trainer.offline.collect import collect
from trainer.served.config import ServersConfig


def served(**changes: object) -> TrainConfig:
    servers = ServersConfig(urls=("http://a:8000", "https://b/llm"))
    config = small_config(Path("run"), iterations=1, servers=servers, registry=Path("proxies"))
    return replace(config, **changes)  # type: ignore[arg-type]


def test_settings_with_servers_are_written_and_read_back() -> None:
    config = served()

    assert config_from_mapping(config_to_mapping(config)).servers == config.servers


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"urls": []}, "servers.urls"),  # nobody
        ({"urls": ["a:8000"]}, "servers.urls"),  # no address
        ({"urls": ["http://a/v1"]}, "servers.urls"),  # as the SDK has it
        ({"urls": ["http://user:secret@a"]}, "servers.urls"),  # would be written to disk
        ({"urls": ["http://a", "http://a"]}, "servers.urls"),  # twice
        ({"urls": [3]}, "servers.urls"),  # of another type
        ({"urls": "http://a", "parallel": 0}, "servers.parallel"),
        ({"urls": "http://a", "patience_seconds": 0}, "servers.patience_seconds"),
        ({"urls": "http://a", "key": "secret"}, "servers.key"),  # would be written to disk
    ],
)
def test_settings_of_servers_that_cannot_be_meant_are_refused(values: dict[str, object], named: str) -> None:
    mapping = config_to_mapping(served()) | {"servers": values}

    with pytest.raises(InvalidParameter) as refused:
        config_from_mapping(mapping)

    assert refused.value.name == named


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"registry": None}, "registry"),  # a run's own folder, which no server follows
        ({"shape": ProxyShape(features="candidate")}, "shape.features"),  # their states are not told
        ({"shape": ProxyShape(features="both")}, "shape.features"),
        ({"data": Path("answers"), "prompts": (), "rewards": (), "algorithm": "mle"}, "servers"),  # nobody answers
    ],
)
def test_a_run_that_servers_cannot_answer_is_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        served(**changes)

    assert refused.value.name == named


def test_the_key_comes_from_the_environment_or_a_file_that_wins(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    config = ServersConfig(urls=("http://a",))

    assert config.key({}) is None
    assert config.key({"PROXY_RLHF_ROLLOUT_KEY": "from-variable"}) == "from-variable"
    assert replace(config, key_file=tmp_path / "key").key({"PROXY_RLHF_ROLLOUT_KEY": "from-variable"}) == "from-file"
    with pytest.raises(InvalidParameter, match="key_file"):
        replace(config, key_file=tmp_path / "none").key({})


def test_servers_do_not_answer_for_the_llm_alone(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="servers"):
        collect(served(output=tmp_path / "out"), parts_in_miniature(), is_plain=True, on_shard=lambda done, total: None)
