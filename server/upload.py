"""A form with a file in it: bounded, and spooled to the disk beyond a megabyte."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from server.body import too_large
from server.errors import invalid

_MAX_FIELDS = 8
_FORM_BYTES = 1 << 16
"""Room for the fields beside the file and for the boundaries."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What a form held."""

    file: UploadFile
    fields: dict[str, Any]
    """`expires_after[seconds]` lies under `seconds` in a dict of its own."""


@asynccontextmanager
async def read_upload(request: Request, max_bytes: int) -> AsyncIterator[Upload]:
    """A form whose part `file` has at most `max_bytes`; it is gone after the block. Raises `ApiError` 400, 413."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise invalid("The content type must be multipart/form-data.", param=None, code="unsupported_content_type")
    stream = _bounded(request, max_bytes + _FORM_BYTES)
    parser = MultiPartParser(request.headers, stream, max_files=1, max_fields=_MAX_FIELDS)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise invalid("We could not parse the form of your request.", param=None, code="invalid_form") from error
    try:
        upload = _upload([(name, value) for name, value in form.multi_items()])
        if (upload.file.size or 0) > max_bytes:
            raise too_large(max_bytes)
        yield upload
    finally:
        await form.close()


def _upload(items: list[tuple[str, UploadFile | str]]) -> Upload:
    fields: dict[str, Any] = {}
    file = None
    for name, value in items:
        outer, bracket, inner = name.partition("[")
        if isinstance(value, UploadFile):
            if name != "file":
                raise invalid(f"Unknown parameter: '{name[:200]}'.", param=name[:200], code="unknown_parameter")
            file = value
        elif not bracket:
            fields[name] = value
        else:
            nested = fields.setdefault(outer, {})
            if isinstance(nested, dict):
                nested[inner.removesuffix("]")] = value
    if file is None:
        message = "Missing required parameter: 'file', a part of the form with a file name."
        raise invalid(message, param="file", code="missing_required_parameter")
    return Upload(file, fields)


async def _bounded(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    num_bytes = 0
    async for part in request.stream():
        num_bytes += len(part)
        if num_bytes > max_bytes:
            raise too_large(max_bytes - _FORM_BYTES)
        yield part
