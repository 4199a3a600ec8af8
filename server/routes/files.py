"""/v1/files: upload, list, look at, read, delete."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response, StreamingResponse

from server.body import validated
from server.dependencies import ApiKey, OwnerDep, ServiceDep
from server.errors import ApiError, invalid
from server.generation.storage import Shelves
from server.openapi import form_body
from server.paging import PageQuery, listed
from server.schemas.files import FileDeleted, FileFields, FileList, FileObject, FileUpload, ListedPurpose
from server.service import Service
from server.upload import read_upload
from store.files import StoredFile, num_chunks
from store.page import Order

router = APIRouter(prefix="/v1/files", dependencies=[ApiKey])

_MAX_LISTED = 10_000
_CONTENT = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def _file_page(
    after: Annotated[str | None, Query(max_length=128)] = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_LISTED)] = _MAX_LISTED,
    order: Annotated[Order | None, Query()] = None,
) -> PageQuery:
    return PageQuery(after, limit, order)


@router.post("", openapi_extra=form_body(FileUpload))
async def create_file(request: Request, service: ServiceDep, owner: OwnerDep) -> FileObject:
    """Keep a file; it is on disk when this answers."""
    async with read_upload(request, service.settings.max_file_bytes) as upload:
        fields = validated(upload.fields, FileFields)
        if not upload.file.size:
            raise invalid("Invalid value for 'file': it is empty.", param="file")
        name, content = upload.file.filename or "file", upload.file.file
        seconds = None if fields.expires_after is None else fields.expires_after.seconds
        kept = await service.storage.call(
            lambda shelves: shelves.files.add(owner, name[:255], fields.purpose, content, lifetime_seconds=seconds)
        )
    return _shown(kept)


@router.get("", response_model=FileList)
async def list_files(
    service: ServiceDep,
    owner: OwnerDep,
    page: Annotated[PageQuery, Depends(_file_page)],
    purpose: ListedPurpose | None = None,
) -> JSONResponse:
    """The caller's files, the newest first."""
    rows, has_more = await service.storage.call(lambda shelves: shelves.files.list(owner, page.page("desc"), purpose))
    return JSONResponse(listed([_shown(row).model_dump() for row in rows], has_more=has_more))


@router.get("/{file_id}")
async def get_file(file_id: str, service: ServiceDep, owner: OwnerDep) -> FileObject:
    """One of the caller's."""
    return _shown(await _find(service, owner, file_id))


@router.get("/{file_id}/content", response_class=Response, responses={200: {"content": _CONTENT}})
async def get_file_content(file_id: str, service: ServiceDep, owner: OwnerDep) -> Response:
    """Its bytes."""
    found = await _find(service, owner, file_id)
    headers = {"content-length": str(found.num_bytes)}
    return StreamingResponse(_pieces(service, found), media_type="application/octet-stream", headers=headers)


@router.delete("/{file_id}")
async def delete_file(file_id: str, service: ServiceDep, owner: OwnerDep) -> FileDeleted:
    """Delete it; a job that was ordered with it and has not begun fails."""
    if not await service.storage.call(lambda shelves: shelves.files.delete(owner, file_id)):
        raise _not_found()
    return FileDeleted(id=file_id)


async def _pieces(service: Service, file: StoredFile) -> AsyncIterator[bytes]:
    """The content; one that is deleted meanwhile ends too early, which the client sees from its length."""
    for number in range(num_chunks(file)):
        piece = await service.storage.call(partial(_piece, file_id=file.id, number=number))
        if piece is None:
            return
        yield piece


def _piece(shelves: Shelves, *, file_id: str, number: int) -> bytes | None:
    return shelves.files.chunk(file_id, number)


async def _find(service: Service, owner: str, file_id: str) -> StoredFile:
    found = await service.storage.call(lambda shelves: shelves.files.get(owner, file_id))
    if found is None:
        raise _not_found()
    return found


def _not_found() -> ApiError:
    return ApiError(404, "There is no file of that id.", "not_found", "file_id")


def _shown(file: StoredFile) -> FileObject:
    return FileObject(
        id=file.id,
        bytes=file.num_bytes,
        created_at=file.stored_at // 1_000_000,
        expires_at=None if file.expires_at is None else file.expires_at // 1_000_000,
        filename=file.filename,
        purpose=file.purpose,
    )
