"""What stands in a message's `content`, by `msg_type`: 1 is plain text, 2–5 are one of these as JSON in a string.

Fields that are not named here are passed on as they are.
"""

from typing import Annotated

from msgspec import Meta

from schemas.types import Model, Token

FileId = Annotated[Token, Meta(description="The uploaded file.")]
Size = Annotated[int, Meta(ge=1, le=2**53 - 1, description="Bytes.")]
MediaType = Annotated[
    str,
    Meta(
        max_length=127,
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*$(?!\n)",
        description="MIME type, without parameters.",
    ),
]
FileName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern=r"^[^\x00-\x1f\x7f/\\]+$(?!\n)",
        description="As the sender's device named it.",
    ),
]
Pixels = Annotated[int, Meta(ge=1, le=100_000, description="In pixels, as it is to be shown.")]
Duration = Annotated[int, Meta(ge=1, le=86_400_000, description="Length in milliseconds.")]


class FileContent(Model):
    """`content` of `msg_type` 3: any file."""

    file_id: FileId
    size: Size
    type: MediaType
    name: FileName | None = None


class ImageContent(FileContent, kw_only=True):
    """`content` of `msg_type` 2: an image (`image/…`)."""

    width: Pixels
    height: Pixels


class VoiceContent(FileContent, kw_only=True):
    """`content` of `msg_type` 4: something spoken (`audio/…`)."""

    duration_ms: Duration


class VideoContent(FileContent, kw_only=True):
    """`content` of `msg_type` 5: a video (`video/…`)."""

    duration_ms: Duration
    width: Pixels | None = None
    height: Pixels | None = None


TEXT, IMAGE, FILE, VOICE, VIDEO = 1, 2, 3, 4, 5
"""`msg_type`."""

CONTENTS: dict[int, type[FileContent]] = {
    IMAGE: ImageContent,
    FILE: FileContent,
    VOICE: VoiceContent,
    VIDEO: VideoContent,
}
"""Struct of a `content` by `msg_type`."""

FAMILIES: dict[int, str] = {IMAGE: "image/", VOICE: "audio/", VIDEO: "video/"}
"""How the MIME type of a `msg_type` begins."""
