"""GET /version."""

from importlib.metadata import version as version_of

from fastapi import APIRouter
from pydantic import BaseModel

from server.dependencies import ApiKey

router = APIRouter(dependencies=[ApiKey])


class Version(BaseModel):
    """Of this program."""

    version: str


@router.get("/version")
async def version() -> Version:
    """Which one this is."""
    return Version(version=version_of("proxy-rlhf"))
