"""Completions to store."""

from dataclasses import replace
from typing import Any

from store.completions import Completion, StoredChoice

MINE, YOURS = "mine", "yours"


def completion(name: str, text: str = "Bake it.", *, stored_at: int = 1_000, **changed: Any) -> Completion:
    """An answer to one short question."""
    choice = StoredChoice(
        text=text, token_ids=(5, 9, 2), finish_reason="stop", num_accepted=3, num_rejected=4, num_forced=1
    )
    whole = Completion(
        id=name,
        kind="chat.completion",
        owner=MINE,
        stored_at=stored_at,
        model="tiny",
        system_fingerprint="tiny-1:helpful@7",
        proxy="helpful",
        proxy_version=7,
        request={"max_tokens": 3},
        items=({"id": f"{name}-0", "role": "user", "content": "Bread?"},),
        prompt=({"role": "user", "content": "Bread?"},),
        prompt_token_ids=(1, 2),
        sampling={"temperature": 0.5},
        choices=(choice,),
        body={"id": name, "choices": [text]},
        metadata={},
    )
    return replace(whole, **changed)
