"""Where everything lies on disk: the one file that builds paths.

    <home>/proxies/<name>/<version>/   published proxies, see `registry`
    <home>/models/<name>/              frozen LLMs converted from GGUF files, see `gguf_cache`
    <home>/rewards/<name>/             trained reward models that a job may name
    <home>/judges/<name>/              those that only judge, and train nothing
    <home>/store.sqlite3               stored completions and feedback, see `store`
    <home>/runs/<job>/                 a fine-tuning job while it is under way: its data and its run
    <home>/feedback/<proxy>/<round>/   what it keeps of its runs from feedback: no text, see `trainer.feedback`
    <home>/training/<proxy>/<round>/   what the trainer's service keeps of its runs

`<home>` is `$PROXY_RLHF_HOME`, or `~/.local/share/proxy-rlhf`.
"""

import os
from pathlib import Path

_DEFAULT_HOME = "~/.local/share/proxy-rlhf"


def home_folder() -> Path:
    """The absolute folder that holds all data of this installation; it need not exist yet."""
    return Path(os.environ.get("PROXY_RLHF_HOME") or _DEFAULT_HOME).expanduser().absolute()


def proxies_root(home: Path | None = None) -> Path:
    """The folder of published proxies."""
    return (home or home_folder()) / "proxies"


def models_root(home: Path | None = None) -> Path:
    """The cache of frozen LLMs converted from GGUF files."""
    return (home or home_folder()) / "models"


def rewards_root(home: Path | None = None) -> Path:
    """The trained reward models that go by a name."""
    return (home or home_folder()) / "rewards"


def judges_root(home: Path | None = None) -> Path:
    """The reward models that only judge."""
    return (home or home_folder()) / "judges"


def store_file(home: Path | None = None) -> Path:
    """The store's database, unless it is Postgres."""
    return (home or home_folder()) / "store.sqlite3"


def jobs_root(home: Path | None = None) -> Path:
    """The fine-tuning jobs that the trainer's service works on."""
    return (home or home_folder()) / "runs"


def training_root(home: Path | None = None) -> Path:
    """The runs of the trainer's service."""
    return (home or home_folder()) / "training"


def feedback_root(home: Path | None = None) -> Path:
    """The rounds that learn from feedback."""
    return (home or home_folder()) / "feedback"


def named_llm_file() -> Path | None:
    """The wheel or GGUF file of the embedded default that `$PROXY_RLHF_LLM_WHEEL` names, if it is set."""
    value = os.environ.get("PROXY_RLHF_LLM_WHEEL")
    return Path(value).expanduser().absolute() if value else None
