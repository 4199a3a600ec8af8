"""What vLLM's workers load (`worker_extension_cls`): methods that `collective_rpc` calls between two steps."""

from pathlib import Path
from typing import Any

from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.grammar import GrammarKind, GrammarSpec
from vllm_plugin.host import ProxyHost
from vllm_plugin.lifeline import end_with_server
from vllm_plugin.setup import WorkerSetup

end_with_server()  # a worker imports this before it loads anything


class ProxyWorker:
    """Mixed into vLLM's worker class; arguments and results are plain JSON."""

    model_runner: Any
    """vLLM's, set by the worker."""

    def proxy_start(self, setup: dict[str, Any]) -> None:
        """Take over the choice of tokens; to be called once, before the first request."""
        self.proxy_host = ProxyHost(self.model_runner, WorkerSetup(**setup))

    def proxy_prepare(self, name: str, version: int, folder: str) -> None:
        """Begin to read a published version."""
        self.proxy_host.bank.prepare(ProxyRef(name, version), Path(folder))

    def proxy_state(self, name: str, version: int) -> str:
        """See `WorkerBank.state`."""
        return self.proxy_host.bank.state(ProxyRef(name, version))

    def proxy_admit(self, name: str, version: int) -> None:
        """Let it decide from the next step on."""
        self.proxy_host.bank.admit(ProxyRef(name, version))

    def proxy_unload(self, name: str, version: int) -> None:
        """Forget a version that no request will name any more."""
        self.proxy_host.bank.loaded.unload(ProxyRef(name, version))

    def proxy_grammar(self, kind: GrammarKind, text: str) -> str:
        """See `ProxyHost.compile`."""
        return self.proxy_host.compile(GrammarSpec(kind, text))
