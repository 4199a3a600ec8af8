"""Fine-tuning jobs of the store as work: leased, prepared on the disk, and ended.

    <home>/runs/<job>/rows.jsonl   the training file as the trainer reads it; where prompts are answered those that fit
    <home>/runs/<job>/answers/     the answers of such a file as decisions, where it has any
    <home>/runs/<job>/run/         the run as `trainer.loop` keeps it

All are deleted when the job has ended, as it does when a file that it learns from is deleted.
"""

import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from proxy_model import disk
from proxy_model.errors import DataError, OutputTaken
from proxy_model.llm.identity import open_tokenizer
from proxy_model.paths import jobs_root
from proxy_model.versions.registry import ProxyRegistry
from store.database import Database
from store.files import Files
from store.fine_tuning.jobs import Job, JobError
from store.fine_tuning.queue import JobQueue, Lease, LeaseLost
from store.fine_tuning.rows import held_out_parser, row_parser
from store.fine_tuning.specification import Specification
from store.fine_tuning.training_file import MIN_ROWS, read_rows
from trainer.config import TrainConfig
from trainer.held_out.examiner import GATES_FILE
from trainer.interruption import Interrupted, Interruption
from trainer.lock import sole_trainer
from trainer.parts import planned_iterations
from trainer.run_log import METRICS_FILE
from trainer.run_log import read_rows as read_metrics
from trainer.service.file_clerk import job_file
from trainer.service.job_config import HELD_OUT_FILE, ROWS_FILE, job_config, job_folder, run_folder
from trainer.service.job_prompts import FittingRows, TokenizerOf
from trainer.service.job_replay import Replayed, replay_rows
from trainer.service.job_report import JobReport, gate_message
from trainer.service.work import Work, ready
from trainer.state import STATE_FILE

logger = logging.getLogger(__name__)


class JobSource:
    """Takes the oldest job that waits, in the name of this process."""

    def __init__(
        self,
        database: Database,
        home: Path,
        lease_seconds: float,
        judge_url: str | None = None,
        tokenizer_of: TokenizerOf = open_tokenizer,
    ) -> None:
        self._queue = JobQueue(database)
        self._files = Files(database)
        self._home = home
        self._lease_seconds = lease_seconds
        self._judge_url = judge_url
        self._tokenizer_of = tokenizer_of
        self._worker = f"trainer-{uuid.uuid4().hex[:12]}"
        self._hand: tuple[Lease, JobReport] | None = None

    def next_work(self) -> Work | None:
        """A job, its data on the disk; None when there is none, or none that can be done. Raises `StoreUnavailable`."""
        self._queue.fail_without_files()
        self._remove_ended()
        lease = self._queue.take(self._worker, self._lease_seconds)
        if lease is None:
            return None
        report = JobReport(self._queue, lease, self._lease_seconds)
        self._hand = lease, report
        try:
            return self._prepare(lease, report)
        except Interrupted:
            report.on_leave()
        except Exception as error:
            if not report.on_error(error):
                raise
            logger.error("a job could not begin", extra={"job": lease.job.id}, exc_info=error)
        return None

    def finish(self, work: Work) -> None:
        """The job has succeeded, unless it was cancelled in its last moment. Raises `StoreUnavailable`."""
        assert self._hand is not None, "no work was handed out"
        lease, report = self._hand
        rows = read_metrics(work.config.output / METRICS_FILE)
        specification = Specification.from_json(lease.job.specification)
        try:
            report.flush()
            refused = self._refused(work.config, specification.llm)
            if refused is not None:
                self._queue.fail(lease, refused)
            else:
                self._queue.succeed(lease, specification.model, _num_tokens(rows, work.config))
        except LeaseLost:
            logger.info("a job was taken back in its last moment", extra={"job": lease.job.id})
        finally:
            report.heartbeat.stop()

    def _refused(self, config: TrainConfig, llm: str) -> JobError | None:
        """What the gates have against the last version; None where it has passed them, or has none."""
        if config.gates is None:
            return None
        version = int(json.loads((config.output / GATES_FILE).read_text().splitlines()[-1])["version"])
        verdict = ProxyRegistry(config.registry_folder).verdicts(config.proxy).by_version[version]
        if verdict.obstacle is None:
            return None
        return JobError(code="gate_failed", message=gate_message(f"{llm}:{config.proxy}@{version}", verdict))

    def _prepare(self, lease: Lease, report: JobReport) -> Work:
        job, home = lease.job, self._home
        specification = Specification.from_json(job.specification)
        folder, rows = run_folder(home, job.id), job_folder(home, job.id) / ROWS_FILE
        if not rows.exists():
            self._write_training_rows(job, specification, rows, report)
        held_out = job_folder(home, job.id) / HELD_OUT_FILE
        if job.validation_file is not None and not held_out.exists():
            parse = held_out_parser(specification.method)
            _write_rows(read_rows(job_file(self._files, job, "validation_file"), parse), held_out)
        with rows.open("rb") as file:
            num_rows = sum(1 for _ in file)
        config = job_config(specification, job.id, num_rows, home, self._judge_url)
        report.num_iterations = planned_iterations(config, num_rows)
        is_resumed = (folder / STATE_FILE).exists()
        if is_resumed:
            report.catch_up(read_metrics(folder / METRICS_FILE))
        else:
            with sole_trainer(folder):
                disk.remove(folder)
        prepare = ready if config.data is None else partial(_replay, rows, num_rows, config, report)
        return Work(config=config, is_resumed=is_resumed, observer=report, prepare=prepare)

    def _write_training_rows(self, job: Job, specification: Specification, path: Path, report: JobReport) -> None:
        """What the run learns from. Prompts that it answers are looked at here, answers that are given when replayed.

        Raises `NoSuchFile`, `DataError` where too few prompts fit, and `Interrupted`.
        """
        rows = read_rows(job_file(self._files, job, "training_file"), row_parser(specification.method))
        if specification.method.grader is None:
            _write_rows(rows, path)
            return
        rollout = job_config(specification, job.id, MIN_ROWS, self._home, self._judge_url).rollout
        fitting = FittingRows.of(rollout, *self._tokenizer_of(specification.llm_source))

        def enough_rows() -> Iterator[tuple[int, Mapping[str, Any]]]:
            yield from fitting.of_file(rows, Interruption(must_abort=report.must_abort).leave_if_due)
            if fitting.num_fitting < MIN_ROWS:
                raise DataError(path, 0, f"{fitting.told}; at least {MIN_ROWS} are needed")
            if fitting.too_long:
                report.note(fitting.told)

        _write_rows(enough_rows(), path)

    def _remove_ended(self) -> None:
        """Delete what is left of jobs that have ended: their data is their owners'. Other trainers may do so, too."""
        root = jobs_root(self._home)
        for folder in root.iterdir() if root.is_dir() else ():
            with suppress(OutputTaken, FileNotFoundError):
                if folder.name.startswith(disk.STAGING_PREFIX):
                    disk.remove(folder)
                elif folder.is_dir() and self._queue.has_ended(folder.name):
                    with sole_trainer(folder / "run"):
                        disk.remove(folder.rename(disk.staging_path(root)))


def _write_rows(rows: Iterable[tuple[int, Mapping[str, Any]]], path: Path) -> None:
    """As the trainer reads them; whole or not at all. Raises what `rows` does."""
    disk.make_folder(path.parent)
    aside = disk.aside_path(path)
    with aside.open("w", encoding="utf-8") as file:
        for _, row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    disk.sync_file(aside)
    aside.replace(path)


def _replay(rows: Path, num_rows: int, config: TrainConfig, report: JobReport, must_leave: Callable[[], bool]) -> bool:
    """Make the decisions that the run learns from, unless they are there; say how much of the file counts.

    Raises `DataError` where that is too little, and what `replay_rows` raises.
    """
    found = replay_rows(rows, config, must_leave)
    if found is None:
        return False
    told = _learnt_from(found, num_rows, config.rollout.max_tokens)
    if found.num_learnable < MIN_ROWS:
        raise DataError(rows, 0, f"{told}; at least {MIN_ROWS} are needed")
    report.num_iterations = planned_iterations(config, found.num_learnable)
    if not (config.output / STATE_FILE).exists():
        report.note(told)
    return True


def _learnt_from(found: Replayed, num_rows: int, max_tokens: int) -> str:
    """How many rows of a file count, and why the others do not."""
    reasons = (
        (
            num_rows - found.num_fitting,
            f"have prompts above {found.max_prompt_tokens} tokens or answers that are alike within {max_tokens}",
        ),
        (found.num_fitting - found.num_learnable, "have an answer without any token that the proxy may choose"),
    )
    dropped = [f"{count} {reason}" for count, reason in reasons if count]
    tokens = f"{found.inadmissible_share:.1%} of the tokens are none that the proxy may choose"
    share = f"{found.num_learnable} of {num_rows} rows ({found.num_learnable / num_rows:.1%}) can be learnt from"
    return "; ".join([share, *dropped, tokens])


def _num_tokens(rows: list[dict[str, float]], config: TrainConfig) -> int:
    """Of all answers that were learnt from, as often as they were."""
    per_prompt = 2 if config.algorithm == "dpo" else config.rollout.responses_per_prompt
    num_answers = config.rollout.prompts_per_iteration * per_prompt
    return sum(round(row["answer/length"] * num_answers) for row in rows)
