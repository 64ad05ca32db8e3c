"""NATS subjects and inboxes: the one place that builds and reads them. See docs for the table of rights."""

import re

COMMAND_PREFIX = "im.v1.cmd."
USER_PREFIX = "im.v1.user."
GROUP_PREFIX = "im.v1.group."
EVENT_PREFIX = "im.v1.evt."

NOBODY = 0
"""Acting user of log-in and registration, which only the edge may use."""

EDGE_INBOX = "_INBOX.e."
USER_INBOX = "_INBOX.u."
FUNCTION_INBOX = "_INBOX.f."
"""A function's own inboxes: answers of JetStream. No command's reply may go there."""
MONITOR_INBOX = f"{USER_INBOX}{NOBODY}."
"""Inboxes of health checks: functions may answer there, and nobody's replies to commands go there."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UID = re.compile(r"0|[1-9][0-9]{0,15}")
_EDGE_REPLY = re.compile(r"_INBOX\.e\.[A-Za-z0-9_-]{22,64}(\.[A-Za-z0-9_-]{1,64}){1,4}")
_REPLY_TAIL = re.compile(r"[A-Za-z0-9_-]{1,128}(\.[A-Za-z0-9_-]{1,128}){0,4}")


def is_token(text: str) -> bool:
    """Whether `text` may become one part of a subject (no `.`, `*`, `>`, white space, at most 64 characters)."""
    return _TOKEN.fullmatch(text) is not None


def command(user_id: int, command_type: str) -> str:
    """Subject of a command: `im.v1.cmd.<uid>.<domain>.<verb>`."""
    return f"{COMMAND_PREFIX}{user_id}.{command_type}"


def commands_of(command_type: str) -> str:
    """Subject on which a function takes one command of all users."""
    return f"{COMMAND_PREFIX}*.{command_type}"


def user(user_id: int) -> str:
    """Subject of the events for all devices of one user."""
    return f"{USER_PREFIX}{user_id}"


def group(group_id: int) -> str:
    """Subject of the events for all members of one group."""
    return f"{GROUP_PREFIX}{group_id}"


def acting_user(subject: str) -> int | None:
    """The user that a command's subject names, or None if its token is no user id. NATS permissions vouch for it."""
    uid = subject[len(COMMAND_PREFIX) : subject.find(".", len(COMMAND_PREFIX))]
    return int(uid) if _UID.fullmatch(uid) else None


def reply_allowed(reply: str, user_id: int) -> bool:
    """Whether a command's answer may go to `reply`: an edge's inbox, or an inbox of the acting user.

    Any other subject (another user's events, say) would let a caller make the function publish in his place.
    """
    if reply.startswith(EDGE_INBOX):
        return _EDGE_REPLY.fullmatch(reply) is not None
    own = f"{USER_INBOX}{user_id}."
    return reply.startswith(own) and _REPLY_TAIL.fullmatch(reply, len(own)) is not None
