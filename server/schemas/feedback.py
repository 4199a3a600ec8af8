"""The bodies of /v1/feedback."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from server.schemas.messages import Strict

StoredId = Annotated[str, Field(min_length=1, max_length=128)]
ChoiceIndex = Annotated[int, Field(ge=0, le=1023)]
MAX_CORRECTION = 100_000


def _integer(value: object) -> object:
    """To a literal, true and 1.0 are 1."""
    if type(value) is not int:
        raise ValueError("input should be -1 or 1")
    return value


class Preference(Strict):
    """Which of two stored answers to one prompt is better."""

    model_config = ConfigDict(extra="forbid")

    chosen_id: StoredId
    rejected_id: StoredId
    chosen_choice: ChoiceIndex = 0
    rejected_choice: ChoiceIndex = 0


class FeedbackRequest(Strict):
    """Exactly one of `rating`, `correction` and `preference`; the first two with a `completion_id`."""

    model_config = ConfigDict(extra="forbid")

    completion_id: StoredId | None = None
    choice: ChoiceIndex = 0
    rating: Annotated[Literal[-1, 1], BeforeValidator(_integer)] | None = None
    """Thumb down, thumb up."""

    correction: Annotated[str, Field(min_length=1, max_length=MAX_CORRECTION)] | None = None
    """What the answer should have been."""

    preference: Preference | None = None
    consent: bool = False
    """Whether it may be trained on."""


class FeedbackObject(BaseModel):
    """What was said, as it is kept."""

    id: str
    object: Literal["feedback"] = "feedback"
    created_at: int
    type: Literal["rating", "correction", "preference"]
    completion_id: str
    """Of a preference: the chosen one."""

    choice: int
    rating: Literal[-1, 1] | None
    correction: str | None
    preference: Preference | None
    consent: bool


class FeedbackList(BaseModel):
    """A page."""

    object: Literal["list"] = "list"
    data: list[FeedbackObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FeedbackDeleted(BaseModel):
    """It is gone."""

    object: Literal["feedback.deleted"] = "feedback.deleted"
    id: str
    deleted: Literal[True] = True
