"""Work in rounds on disk: numbered folders, the last line of each of which says that it is complete."""

import json
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from proxy_model import disk
from proxy_model.errors import InvalidParameter

DONE_FILE = "done.json"

Schedule = TypeVar("Schedule")


def last_round(root: Path) -> int:
    """The number of the newest round under `root`; 0 if there is none."""
    return max((int(each.name) for each in root.glob("[1-9]*") if each.name.isdecimal()), default=0)


def is_done(folder: Path) -> bool:
    """Whether the round in `folder` is complete."""
    return (folder / DONE_FILE).exists()


def finished_at(folder: Path) -> float:
    """When the complete round in `folder` ended, in seconds since the epoch."""
    found: float = json.loads((folder / DONE_FILE).read_text())["finished_at"]
    return found


def mark_done(folder: Path, at: float) -> None:
    """Say on the disk that the round in `folder` is complete."""
    aside = disk.staging_path(folder)
    disk.write_file(aside, json.dumps({"finished_at": at}).encode() + b"\n")
    aside.replace(folder / DONE_FILE)
    disk.sync_folder(folder)


def read_settings(path: Path) -> dict[str, Any]:
    """A job file's run settings and its table. Raises `InvalidParameter`, `OSError`."""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidParameter("job", str(path), f"TOML ({error})") from error
    for name in {"output", "registry"} & settings.keys():
        raise InvalidParameter(name, settings[name], "left out: the service has folders of its own")
    return settings


def schedule_of(settings: dict[str, Any], table: str, kind: type[Schedule]) -> Schedule:
    """Take the table that says when rounds are done out of `settings`. Raises `InvalidParameter`."""
    given = settings.pop(table, {})
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(given, dict) or given.keys() - set(names):
        raise InvalidParameter(table, given, f"a table of {names}")
    try:
        return kind(**given)
    except TypeError as error:
        raise InvalidParameter(table, given, f"a table of {names} ({error})") from error
