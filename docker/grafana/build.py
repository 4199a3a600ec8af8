"""Writes the dashboards that Grafana is provisioned with, from the few words that they are described by.

python docker/grafana/build.py            write dashboards/*.json
python docker/grafana/build.py --check    exit 1 if what is there is not what would be written
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from panels import to_json
from proxy import PROXY
from traffic import TRAFFIC
from training import TRAINING

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = {"traffic.json": TRAFFIC, "proxy.json": PROXY, "training.json": TRAINING}


def main(arguments: Sequence[str]) -> int:
    """Write or compare; returns the exit code."""
    outdated = []
    for name, dashboard in DASHBOARDS.items():
        path, text = FOLDER / name, json.dumps(to_json(dashboard), indent=2) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        outdated.append(name)
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
    for name in outdated:
        print(f"{name} {'is out of date' if '--check' in arguments else 'was written'}")
    return int("--check" in arguments and bool(outdated))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
