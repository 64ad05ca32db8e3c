r"""Field types shared by the Structs.

Ranges and patterns are part of the contract and reach the generated schemas. Patterns end in
`$(?!\n)`: Python's `$` alone would let a line feed at the end pass, and so into subjects and keys.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_NUMBER = 2**53 - 1
"""Largest user or group id: the largest integer that JavaScript reads exactly."""

UserId = Annotated[int, Meta(ge=1, le=MAX_NUMBER, description="A user's number.")]
GroupId = Annotated[int, Meta(ge=1, le=MAX_NUMBER, description="A group's number.")]
Seq = Annotated[
    int,
    Meta(
        ge=0,
        le=MAX_NUMBER,
        description="Position in a conversation: 1, 2, 3 … without gaps.",
    ),
]
MembersVersion = Annotated[
    int,
    Meta(ge=0, le=MAX_NUMBER, description="Counts the changes of a group's members: 1, 2, 3 …"),
]
Milliseconds = Annotated[int, Meta(ge=0, le=MAX_NUMBER, description="Unix time in milliseconds.")]

Token = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)")]
"""An id that may become part of a NATS subject."""

ClientMsgId = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)",
        description="The sender's own id, best a UUIDv7; a repeat is the same message.",
    ),
]
ConversationId = Annotated[
    str,
    Meta(
        pattern=r"^(p_[1-9][0-9]{0,15}_[1-9][0-9]{0,15}|g_[1-9][0-9]{0,15})$(?!\n)",
        description="p_<lower user id>_<higher user id>, or g_<group id>.",
    ),
]
MsgId = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,20}$(?!\n)",
        description="Snowflake id of a message, in a string.",
    ),
]

Username = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[^\s\x00-\x1f\x7f]+$(?!\n)",
        description="Log-in name without white space. Unique; compared without case.",
    ),
]
Password = Annotated[
    str,
    Meta(min_length=8, max_length=128, description="A new password; any characters."),
]
Nickname = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)",
        description="The name that others see; not unique.",
    ),
]
Platform = Annotated[
    Literal["web", "ios", "android", "desktop", "other"],
    Meta(description="Kind of device."),
]

MAX_CONTENT = 16_000
"""Longest `content` in characters: at four bytes each it still fits MySQL's TEXT."""
MAX_EXTRA = 4096
"""Longest `extra` in bytes of JSON."""
Extra = Annotated[
    msgspec.Raw | msgspec.UnsetType,
    Meta(
        description=f"Any JSON of at most {MAX_EXTRA} bytes, for the application; passed on unread."
    ),
]

Cursor = Annotated[
    str,
    Meta(
        description="Where the page starts: `next` of the page before; without it, the first page."
    ),
]
Next = Annotated[str, Meta(description="`cursor` of the following page; null at the end.")]
Limit = Annotated[int, Meta(ge=1, le=200, description="Most entries of one page.")]


class Model(msgspec.Struct, omit_defaults=True):
    """Base of all wire Structs: fields that hold their default are left out of the JSON."""


class Empty(Model):
    """No fields: `{}`."""
