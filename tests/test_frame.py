"""What holds the project together: light imports stay light, shapes are checked, every dependency is pinned."""

import json
import resource
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from proxy_model.decision.choice import first_accepted
from proxy_model.decision.skam import Slate

REPOSITORY = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "fastapi", "uvicorn", "tensorboard", "huggingface_hub", "numpy")


def modules_after(code: str) -> set[str]:
    """Names of all modules that a fresh process has loaded after running `code`."""
    report = "import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    finished = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return set(json.loads(finished.stderr.splitlines()[-1]))


def test_help_needs_nothing_heavy() -> None:
    commands = [
        [],
        *([name] for name in ("serve", "chat", "train", "trainer", "reward", "evaluate", "demo", "proxies")),
    ]

    loaded = modules_after(f"from cli.main import main\nfor command in {commands}: main([*command, '--help'])")

    assert "cli.main" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_help_takes_under_a_second_of_processor_time() -> None:
    """Processor time, because the clock also counts whatever else the machine is doing."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    subprocess.run([sys.executable, "-m", "cli.main", "--help"], cwd=REPOSITORY, capture_output=True, check=True)

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_settings_and_errors_load_without_torch() -> None:
    loaded = modules_after("import proxy_model.errors, proxy_model.decision.config, proxy_model.paths, trainer.config")

    assert loaded.isdisjoint(HEAVY)


def test_the_server_loads_nothing_of_the_trainer() -> None:
    loaded = modules_after("import server.launch")

    assert "server.app" in loaded
    assert loaded.isdisjoint({"trainer", "cli", "tensorboard", "sklearn"})


def test_the_model_loads_no_web_framework() -> None:
    code = (
        "import importlib, pkgutil, proxy_model\n"
        "for each in pkgutil.walk_packages(proxy_model.__path__, 'proxy_model.'): importlib.import_module(each.name)"
    )

    loaded = modules_after(code)

    assert "proxy_model.decoding.engine" in loaded
    assert loaded.isdisjoint({"server", "trainer", "cli", "fastapi", "starlette", "uvicorn", "prometheus_client"})


def test_a_wrong_shape_is_refused_where_tests_run() -> None:
    """Noise for one row and logits for two would broadcast without a word: two answers would share their luck."""
    slate = Slate(
        tokens=torch.tensor([[5, 3, 8], [2, 9, 4]]),
        logprobs=torch.tensor([[-0.5, -1.5, -2.5], [-0.25, -2.0, -3.0]]),
        is_candidate=torch.ones(2, 3, dtype=torch.bool),
        is_free=torch.tensor([[True, True, False], [True, True, False]]),
    )
    logits = torch.tensor([[-4.0, 4.0, 0.0], [4.0, 4.0, 0.0]])

    assert first_accepted(logits, slate, torch.full((2, 3), 0.5)).tokens.tolist() == [3, 2]
    with pytest.raises(TypeCheckError):
        first_accepted(logits, slate, torch.full((1, 3), 0.5))
    with pytest.raises(TypeCheckError):
        first_accepted(logits.int(), slate, torch.full((2, 3), 0.5))


def test_shapes_cost_nothing_where_no_test_runs() -> None:
    assert "beartype" not in modules_after("import proxy_model.decision.skam")


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    of_others = {"vllm"}  # pins itself: it wants another transformers, so it never shares an environment with these
    extras = [
        line for name, lines in project["optional-dependencies"].items() if name not in of_others for line in lines
    ]
    wanted = {normalised(line) for line in [*project["dependencies"], *extras]} - {"proxy-rlhf"}
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = {normalised(line): line for line in lines if line and not line.startswith("#")}

    assert wanted <= pinned.keys()
    assert all("==" in line and "+" not in line for line in pinned.values())
    assert all("==" in line for line in project["optional-dependencies"]["vllm"])


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="proxy-rlhf")

    assert command.load().__module__ == "cli.main"


def normalised(requirement: str) -> str:
    """The distribution's name as registries spell it."""
    name = requirement
    for mark in "[<>=!~; ":
        name = name.partition(mark)[0]
    return name.lower().replace("_", "-").replace(".", "-")
