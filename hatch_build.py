"""Compile the kernels of `proxy_model.native` while the package is installed, editable or as a wheel."""

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_path = Path(__file__).parent / "proxy_model" / "native" / "build.py"
_spec = importlib.util.spec_from_file_location("kernels_build", _path)
assert _spec is not None
assert _spec.loader is not None
kernels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kernels)


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Elsewhere than on Linux on x86-64 there is nothing to compile, and torch computes."""

    def dependencies(self) -> list[str]:
        """A compiler from the package index, where the machine has none that will do."""
        return [kernels.ZIG] if kernels.is_supported() and kernels.own_compiler() is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the result into the wheel."""
        if self.target_name != "wheel" or not kernels.is_supported():
            return
        compiled = kernels.compile_kernels().relative_to(self.root)
        build_data["artifacts"].append(f"/{compiled}")
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-linux_x86_64"
