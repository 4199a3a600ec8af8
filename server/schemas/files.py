"""The bodies of /v1/files."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Purpose = Literal["fine-tune", "assistants", "batch", "vision", "user_data", "evals"]
"""Only `fine-tune` means something here; files for anything else are kept and given back."""

ListedPurpose = Literal["fine-tune", "assistants", "batch", "vision", "user_data", "evals", "fine-tune-results"]


class ExpiresAfter(BaseModel):
    """When a file is deleted by itself."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class FileFields(BaseModel):
    """The fields of a form beside its file."""

    model_config = ConfigDict(extra="forbid")

    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class FileUpload(BaseModel):
    """The form, as it is described to clients."""

    file: Annotated[str, Field(json_schema_extra={"format": "binary"})]
    purpose: Purpose
    expires_after_anchor: Annotated[Literal["created_at"] | None, Field(alias="expires_after[anchor]")] = None
    expires_after_seconds: Annotated[
        int | None, Field(alias="expires_after[seconds]", ge=3600, le=2_592_000, description="Both or neither.")
    ] = None


class FileObject(BaseModel):
    """A file without its content."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: None = None


class FileList(BaseModel):
    """A page."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """It is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
