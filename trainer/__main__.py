"""`python -m trainer settings.toml [--resume]`: one training run, shown as a live table."""

import argparse
import sys
from pathlib import Path

from proxy_model.errors import ProxyRlhfError
from trainer.config_file import read_config
from trainer.live_table import LiveTable
from trainer.loop import Supervision, train
from trainer.service.needed_by_jobs import needed_by_jobs


def main(arguments: list[str] | None = None) -> int:
    """Run the settings of a file; 0 when done, 2 for settings or data that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    parser.add_argument("settings", type=Path, help="TOML or JSON file, see trainer/config.py")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the settings' output folder")
    options = parser.parse_args(arguments)
    try:
        config = read_config(options.settings)
        with LiveTable() as table:
            supervision = Supervision(spared=needed_by_jobs)
            result = train(config, is_resumed=options.resume, on_iteration=table.show, supervision=supervision)
    except (ProxyRlhfError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("published " + ", ".join(map(str, result.published)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
