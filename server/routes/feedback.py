"""/v1/feedback: what people think of stored answers, of chat and of responses; kept for the trainer."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from server.body import read_body
from server.dependencies import ApiKey, OwnerDep, ServiceDep
from server.errors import ApiError, invalid
from server.openapi import json_body
from server.paging import PageDep, listed
from server.schemas.feedback import FeedbackDeleted, FeedbackList, FeedbackObject, FeedbackRequest, Preference
from store.feedback import Feedback, NoSuchAnswer, NotComparable, Opinion, Target

router = APIRouter(prefix="/v1/feedback", dependencies=[ApiKey])


@router.post("", openapi_extra=json_body(FeedbackRequest))
async def create_feedback(request: Request, service: ServiceDep, owner: OwnerDep) -> FeedbackObject:
    """Keep an opinion; the same kind on the same answers again replaces it."""
    body = await read_body(request, FeedbackRequest, service.settings.max_body_bytes)
    opinion = _opinion(body)
    try:
        return _shown(await service.storage.call(lambda shelves: shelves.feedback.put(owner, opinion)))
    except NoSuchAnswer as error:
        raise _no_answer(error.target, opinion) from error
    except NotComparable as error:
        raise invalid(f"Invalid preference: {error}.", param="preference", code="not_comparable") from error


@router.get("", response_model=FeedbackList)
async def list_feedback(
    service: ServiceDep,
    owner: OwnerDep,
    page: PageDep,
    completion_id: Annotated[str | None, Query(max_length=128)] = None,
) -> JSONResponse:
    """The caller's feedback, the oldest first; with `completion_id`, what concerns that completion."""
    rows, has_more = await service.storage.call(
        lambda shelves: shelves.feedback.list(owner, page.page(), completion_id)
    )
    return JSONResponse(listed([_shown(row).model_dump() for row in rows], has_more=has_more))


@router.get("/{feedback_id}")
async def get_feedback(feedback_id: str, service: ServiceDep, owner: OwnerDep) -> FeedbackObject:
    """One of the caller's."""
    found = await service.storage.call(lambda shelves: shelves.feedback.get(owner, feedback_id))
    if found is None:
        raise _not_found()
    return _shown(found)


@router.delete("/{feedback_id}")
async def delete_feedback(feedback_id: str, service: ServiceDep, owner: OwnerDep) -> FeedbackDeleted:
    """Take it back."""
    if not await service.storage.call(lambda shelves: shelves.feedback.delete(owner, feedback_id)):
        raise _not_found()
    return FeedbackDeleted(id=feedback_id)


def _opinion(body: FeedbackRequest) -> Opinion:
    """Raises 400 unless it says exactly one thing about an answer."""
    if sum(said is not None for said in (body.rating, body.correction, body.preference)) != 1:
        raise invalid("Give exactly one of 'rating', 'correction' and 'preference'.", param="rating")
    if body.preference is not None:
        if body.completion_id is not None or body.choice:
            raise invalid("A preference names its answers in 'preference' only.", param="completion_id")
        chosen, rejected = _targets(body.preference)
        return Opinion(about=chosen, rejected=rejected, consent=body.consent)
    if body.completion_id is None:
        message = "Missing required parameter: 'completion_id'."
        raise invalid(message, param="completion_id", code="missing_required_parameter")
    if body.correction is not None and not body.correction.strip():
        raise invalid("Invalid value for 'correction': it must not be blank.", param="correction")
    about = Target(completion_id=body.completion_id, choice=body.choice)
    return Opinion(about=about, rating=body.rating, correction=body.correction, consent=body.consent)


def _targets(preference: Preference) -> tuple[Target, Target]:
    return (
        Target(completion_id=preference.chosen_id, choice=preference.chosen_choice),
        Target(completion_id=preference.rejected_id, choice=preference.rejected_choice),
    )


def _no_answer(target: Target, opinion: Opinion) -> ApiError:
    param = "completion_id"
    if opinion.rejected is not None:
        param = "preference.chosen_id" if target == opinion.about else "preference.rejected_id"
    message = f"There is no stored completion of the id in '{param}' with a choice {target.choice}."
    return ApiError(404, message, "not_found", param)


def _not_found() -> ApiError:
    return ApiError(404, "There is no feedback of that id.", "not_found", "feedback_id")


def _shown(row: Feedback) -> FeedbackObject:
    opinion = row.opinion
    preference = None
    if opinion.rejected is not None:
        preference = Preference(
            chosen_id=opinion.about.completion_id,
            chosen_choice=opinion.about.choice,
            rejected_id=opinion.rejected.completion_id,
            rejected_choice=opinion.rejected.choice,
        )
    return FeedbackObject(
        id=row.id,
        created_at=row.stored_at // 1_000_000,
        type=opinion.kind,
        completion_id=opinion.about.completion_id,
        choice=opinion.about.choice,
        rating=opinion.rating,
        correction=opinion.correction,
        preference=preference,
        consent=opinion.consent,
    )
