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
HOST_INBOX = "_INBOX.c."
"""Inboxes of CloudEvents hosts, for answers of the timeline to commands that came over HTTP. No caller may name one."""
MONITOR_INBOX = f"{USER_INBOX}{NOBODY}."
"""Inboxes of health checks: functions may answer there, and nobody's replies to commands go there."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UID = re.compile(r"0|[1-9][0-9]{0,15}")
_EDGE_REPLY = re.compile(r"_INBOX\.e\.[A-Za-z0-9_-]{22,64}(\.[A-Za-z0-9_-]{1,64}){1,4}")
_HOST_REPLY = re.compile(r"_INBOX\.c\.[A-Za-z0-9_-]{22}\.[0-9]{1,16}")
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
    return read_user(subject[len(COMMAND_PREFIX) : subject.find(".", len(COMMAND_PREFIX))])


def read_user(text: str) -> int | None:
    """A user id as it stands in a subject, or None if it is none."""
    return int(text) if _UID.fullmatch(text) else None


def reply_allowed(reply: str, user_id: int) -> bool:
    """Whether a command's answer may go to `reply`: an edge's inbox, or an inbox of the acting user.

    Any other subject (another user's events, say) would let a caller make the function publish in his place.
    """
    if reply.startswith(EDGE_INBOX):
        return _EDGE_REPLY.fullmatch(reply) is not None
    own = f"{USER_INBOX}{user_id}."
    return reply.startswith(own) and _REPLY_TAIL.fullmatch(reply, len(own)) is not None


def answer_allowed(reply: str, user_id: int) -> bool:
    """Whether the timeline may answer on `reply`: as `reply_allowed`, or the inbox of a CloudEvents host, which
    puts its own address into the record. Whoever asks over NATS cannot name it: the hosts go by `reply_allowed`.
    """
    return reply_allowed(reply, user_id) or _HOST_REPLY.fullmatch(reply) is not None
