"""Publish two proxies at once, both of which stop for ever in the middle, for whoever wants to kill that.

    python -m tests.front_door.stuck_publishers <root> <llm folder>

Of the next `harmless`, all files but the manifest are written. The next `helpful` is in its place, but no alias names
it yet.
"""

import sys
import threading
import time
from pathlib import Path

from proxy_model.llm.frozen_llm import load_llm
from proxy_model.manifest import write_manifest
from proxy_model.versions import checkpoint, registry
from tests.front_door.rank_proxies import RankPublisher


def stop() -> None:
    """Say so and wait for the end."""
    print("stuck", flush=True)
    time.sleep(3600)
    raise AssertionError("nobody killed this process")


def stop_at_harmless(folder: Path) -> None:
    """In the place of `write_manifest`."""
    if folder.parent.name == "harmless":
        stop()
    write_manifest(folder)


if __name__ == "__main__":
    root, llm_folder = map(Path, sys.argv[1:])
    vars(checkpoint)["write_manifest"] = stop_at_harmless
    vars(registry)["_commit"] = lambda staged, name: stop()
    llm = load_llm(str(llm_folder), dtype="float32", device="cpu")
    for name in ("helpful", "harmless"):
        publisher = RankPublisher(root, root, llm, name=name)
        threading.Thread(target=publisher.publish).start()
