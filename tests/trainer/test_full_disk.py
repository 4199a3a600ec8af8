"""What a run has on disk when there is no room for more: all that it had, and an error that says why."""

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy_model.decision.bank import ProxyRef
from tests.small_disk import fill, make_room, small_disk
from tests.trainer.test_state import SETTINGS, new_policy
from trainer.held_out.examiner import GATES_FILE, Examination, note_examination
from trainer.offline.reference import reference_of
from trainer.run_log import METRICS_FILE, RunLog, read_rows
from trainer.state import Progress, load_state, save_state


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 64):
        yield tmp_path / "disk"


def assert_full(call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match="No space left on device") as refused:
        call()
    assert refused.value.errno == errno.ENOSPC


def test_a_state_that_has_no_room_leaves_the_old_one(disk: Path) -> None:
    policy, optimizer = new_policy(1)
    save_state(disk, policy, optimizer, Progress(iteration=7), SETTINGS)
    fill(disk)

    assert_full(lambda: save_state(disk, policy, optimizer, Progress(iteration=8), SETTINGS))

    assert load_state(disk, policy, optimizer, SETTINGS).iteration == 7
    make_room(disk)
    save_state(disk, policy, optimizer, Progress(iteration=8), SETTINGS)
    assert load_state(disk, policy, optimizer, SETTINGS).iteration == 8


def test_a_resumed_run_does_not_lose_its_rows(disk: Path) -> None:
    with RunLog(disk, num_done=0, tensorboard=False) as log:
        for number in range(3):
            log.write({"progress/iteration": number + 1})
    fill(disk)

    assert_full(lambda: RunLog(disk, num_done=2, tensorboard=False))

    assert [row["progress/iteration"] for row in read_rows(disk / METRICS_FILE)] == [1, 2, 3]


def test_an_examination_is_noted_whole_or_not_at_all(disk: Path) -> None:
    seen = Examination(against="base", prompts="12 of 20 prompts", readings=())
    note_examination(disk, ProxyRef(name="tiny", version=1), seen)
    fill(disk)

    assert_full(lambda: note_examination(disk, ProxyRef(name="tiny", version=2), seen))
    make_room(disk)
    note_examination(disk, ProxyRef(name="tiny", version=3), seen)

    lines = (disk / GATES_FILE).read_text().splitlines()
    assert [json.loads(line)["version"] for line in lines] == [1, 3]


def test_the_reference_of_an_offline_run_says_that_the_disk_is_full(disk: Path) -> None:
    policy, _ = new_policy(1)
    fill(disk)

    assert_full(lambda: reference_of(disk, policy, is_resumed=False))
