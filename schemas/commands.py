"""The one table of commands: WebSocket type, NATS subject tail and HTTP route.

The edge routes by it, the functions bind to it, `schemas.generate` documents it.
"""

from dataclasses import dataclass, field
from typing import Literal

from schemas import (
    auth,
    conversations,
    friends,
    groups,
    internal,
    messages,
    presence,
    search,
    users,
)
from schemas.errors import ErrorCode
from schemas.types import Empty, Model

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
ModelType = type[Model]
API_PREFIX = "/api/v1"
HOT = frozenset({"send", "recall", "read", "history", "presence", "groups"})
"""Functions of which a process always runs. The others may be scaled to zero and start when a command comes."""
LOGGED = frozenset({"send", "recall", "read"})
"""Functions whose commands go into the log."""


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is below `/api/v1`.

    Its `{name}` parts are fields of the request, as are query (GET) and body (otherwise).
    """

    method: Method
    path: str
    status: int = 200


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    type: `<domain>.<verb>`, the WebSocket `type` and the tail of `im.v1.cmd.<uid>.<domain>.<verb>`.
    function: name of the function that serves it, which is also its NATS queue group.
    anonymous: nobody is logged in; the acting user is 0, and only the edge may send it (over HTTP).
    internal: the edge asks it for itself, as user 0; no client can send it, neither as a frame nor over HTTP.
    deadline_ms: how long the edge waits before it answers `unknown_outcome`: longer than a cold start takes, where the
    function may have to be started first.
    """

    type: str
    function: str
    request: ModelType
    reply: ModelType
    summary: str
    route: Route | None = None
    aliases: tuple[str, ...] = ()
    anonymous: bool = False
    internal: bool = False
    errors: tuple[ErrorCode, ...] = ()
    deadline_ms: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "deadline_ms", 5_000 if self.function in HOT else 15_000)

    @property
    def logged(self) -> bool:
        """Whether it goes into the log, and its reader answers."""
        return self.function in LOGGED

    @property
    def by_nobody(self) -> bool:
        """Whether the acting user is 0, and so only the edge may send it."""
        return self.anonymous or self.internal


AUTH_CHECK = Command(
    "auth.check",
    "auth",
    internal.CheckSessions,
    internal.EndedSessions,
    "Which sessions have ended",
    internal=True,
)
GROUP_MEMBERSHIPS = Command(
    "group.memberships",
    "groups",
    internal.GetMemberships,
    internal.Memberships,
    "In which groups users are",
    internal=True,
)
GROUP_AMONG = Command(
    "group.among",
    "groups",
    internal.GetAmong,
    internal.Among,
    "Which users are in a group",
    internal=True,
)
PRESENCE_REPORT = Command(
    "presence.report",
    "presence",
    presence.ReportPresence,
    presence.PresenceReported,
    "Which connections an edge has",
    internal=True,
)

COMMANDS: tuple[Command, ...] = (
    Command(
        "auth.register",
        "auth",
        auth.Register,
        users.Me,
        "Create an account",
        Route("POST", "/auth/register", 201),
        anonymous=True,
        errors=("conflict", "forbidden"),
    ),
    Command(
        "auth.login",
        "auth",
        auth.Login,
        auth.Tokens,
        "Log in on a device",
        Route("POST", "/auth/login"),
        anonymous=True,
        errors=("unauthenticated", "rate_limited"),
    ),
    Command(
        "auth.refresh",
        "auth",
        auth.Refresh,
        auth.Tokens,
        "Trade a refresh token for a new pair",
        Route("POST", "/auth/refresh"),
        anonymous=True,
        errors=("unauthenticated",),
    ),
    Command(
        "auth.logout",
        "auth",
        auth.Logout,
        Empty,
        "End a session",
        Route("POST", "/auth/logout"),
        errors=("not_found",),
    ),
    Command(
        "auth.sessions",
        "auth",
        auth.ListSessions,
        auth.Sessions,
        "List one's own sessions",
        Route("GET", "/auth/sessions"),
    ),
    Command(
        "auth.revoke_session",
        "auth",
        auth.RevokeSession,
        Empty,
        "End one of one's own sessions",
        Route("DELETE", "/auth/sessions/{id}"),
        errors=("not_found",),
    ),
    AUTH_CHECK,
    Command(
        "auth.change_password",
        "auth",
        auth.ChangePassword,
        Empty,
        "Change the password",
        Route("POST", "/auth/password"),
        errors=("forbidden", "rate_limited"),
    ),
    Command(
        "user.me",
        "profile",
        users.GetMe,
        users.Me,
        "One's own profile",
        Route("GET", "/users/me"),
    ),
    Command(
        "user.update",
        "profile",
        users.UpdateMe,
        users.Me,
        "Change one's own profile",
        Route("PATCH", "/users/me"),
    ),
    Command(
        "user.delete",
        "profile",
        users.DeleteMe,
        Empty,
        "Delete one's own account",
        Route("DELETE", "/users/me"),
        errors=("forbidden", "conflict", "rate_limited"),
    ),
    Command(
        "user.search",
        "profile",
        users.SearchUsers,
        users.Users,
        "Find users by the start of their name",
        Route("GET", "/users"),
    ),
    Command(
        "user.get",
        "profile",
        users.GetUser,
        users.User,
        "A user's profile",
        Route("GET", "/users/{id}"),
        errors=("not_found",),
    ),
    Command(
        "message.send",
        "send",
        messages.SendMessage,
        messages.MessageAck,
        "Send a message",
        Route("POST", "/messages"),
        aliases=("message",),
        errors=(
            "not_found",
            "forbidden",
            "blocked",
            "not_friend",
            "conflict",
            "rate_limited",
            "too_large",
        ),
    ),
    Command(
        "message.recall",
        "recall",
        messages.RecallMessage,
        messages.Changed,
        "Take a message back",
        Route("POST", "/messages/recall"),
        errors=("not_found", "forbidden", "recall_window_passed", "rate_limited"),
    ),
    Command(
        "message.edit",
        "recall",
        messages.EditMessage,
        messages.Changed,
        "Give one's own message another content",
        Route("POST", "/messages/edit"),
        errors=("not_found", "forbidden", "conflict", "blocked", "not_friend", "rate_limited"),
    ),
    Command(
        "message.react",
        "recall",
        messages.ReactToMessage,
        messages.Changed,
        "Add or remove a reaction",
        Route("POST", "/messages/react"),
        errors=("not_found", "conflict", "blocked", "not_friend", "rate_limited"),
    ),
    Command(
        "message.pin",
        "recall",
        messages.PinMessage,
        messages.Changed,
        "Pin a message in its conversation, or let it go",
        Route("POST", "/messages/pin"),
        errors=("not_found", "forbidden", "conflict", "blocked", "not_friend", "rate_limited"),
    ),
    Command(
        "message.read",
        "read",
        messages.ReadMessages,
        messages.ReadPosition,
        "Say how far one has read",
        Route("POST", "/messages/read"),
        errors=("forbidden", "rate_limited"),
    ),
    Command(
        "message.delivered",
        "read",
        messages.ConfirmDelivery,
        Empty,
        "Say how far a device has the messages",
        Route("POST", "/messages/delivered"),
        errors=("forbidden", "rate_limited"),
    ),
    Command(
        "message.history",
        "history",
        messages.GetHistory,
        messages.History,
        "A page of a conversation",
        Route("GET", "/messages"),
        errors=("forbidden",),
    ),
    Command(
        "message.sync",
        "history",
        messages.Sync,
        messages.Synced,
        "What a device has missed in all its conversations",
        Route("POST", "/messages/sync"),
    ),
    Command(
        "message.search",
        "history",
        search.SearchMessages,
        search.FoundMessages,
        "Find messages by their words",
        Route("GET", "/messages/search"),
        errors=("forbidden",),
    ),
    Command(
        "message.report",
        "history",
        search.ReportMessage,
        Empty,
        "Show a message to the operators",
        Route("POST", "/messages/report"),
        errors=("not_found",),
    ),
    Command(
        "message.receipts",
        "history",
        conversations.ListReceipts,
        conversations.Receipts,
        "Who has read a message, and who has it",
        Route("GET", "/messages/{msg_id}/receipts"),
        errors=("not_found",),
    ),
    Command(
        "message.edits",
        "history",
        conversations.ListEdits,
        conversations.Edits,
        "What a message was before it was edited",
        Route("GET", "/messages/{msg_id}/edits"),
        errors=("not_found",),
    ),
    Command(
        "conversation.list",
        "history",
        conversations.ListConversations,
        conversations.Conversations,
        "One's own conversations",
        Route("GET", "/conversations"),
    ),
    Command(
        "conversation.update",
        "history",
        conversations.UpdateConversation,
        conversations.ConversationState,
        "Pin or mute a conversation, or keep a draft",
        Route("PATCH", "/conversations/{conversation_id}"),
        errors=("forbidden",),
    ),
    Command(
        "conversation.clear",
        "history",
        conversations.ClearConversation,
        conversations.ConversationState,
        "Clear a conversation for oneself",
        Route("POST", "/conversations/{conversation_id}/clear"),
        errors=("forbidden",),
    ),
    Command(
        "conversation.pins",
        "history",
        conversations.ListPins,
        conversations.Pins,
        "The pinned messages of a conversation",
        Route("GET", "/conversations/{conversation_id}/pins"),
        errors=("forbidden",),
    ),
    Command(
        "friend.apply",
        "friend_apply",
        friends.ApplyFriend,
        friends.Application,
        "Ask a user to become friends",
        Route("POST", "/friends/apply"),
        errors=(
            "not_found",
            "blocked",
            "conflict",
            "rate_limited",
        ),
    ),
    Command(
        "friend.applications",
        "friend_apply",
        friends.ListApplications,
        friends.Applications,
        "Applications from and to oneself",
        Route("GET", "/friends/applications"),
    ),
    Command(
        "friend.accept",
        "friend_apply",
        friends.AcceptApplication,
        friends.Friend,
        "Accept an application",
        Route("POST", "/friends/applications/{id}/accept"),
        errors=(
            "not_found",
            "conflict",
        ),
    ),
    Command(
        "friend.reject",
        "friend_apply",
        friends.RejectApplication,
        friends.Application,
        "Reject an application",
        Route("POST", "/friends/applications/{id}/reject"),
        errors=(
            "not_found",
            "conflict",
        ),
    ),
    Command(
        "friend.list",
        "friends",
        friends.ListFriends,
        friends.Friends,
        "One's friends, or what changed among them",
        Route("GET", "/friends"),
    ),
    Command(
        "friend.blocked",
        "friends",
        friends.ListBlocked,
        friends.BlockedUsers,
        "Whom one has blocked",
        Route("GET", "/friends/blocked"),
    ),
    Command(
        "friend.remark",
        "friends",
        friends.RemarkFriend,
        friends.Friend,
        "Give a friend a name of one's own",
        Route("PATCH", "/friends/{id}"),
        errors=("not_found",),
    ),
    Command(
        "friend.delete",
        "friends",
        friends.DeleteFriend,
        Empty,
        "End a friendship",
        Route("DELETE", "/friends/{id}"),
        errors=("not_found",),
    ),
    Command(
        "friend.block",
        "friends",
        friends.BlockUser,
        Empty,
        "Block a user",
        Route("POST", "/friends/{id}/block"),
        errors=("not_found",),
    ),
    Command(
        "friend.unblock",
        "friends",
        friends.UnblockUser,
        Empty,
        "Take a block back",
        Route("DELETE", "/friends/{id}/block"),
        errors=("not_found",),
    ),
    Command(
        "group.create",
        "groups",
        groups.CreateGroup,
        groups.Group,
        "Make a group",
        Route("POST", "/groups", 201),
        errors=(
            "not_found",
            "blocked",
            "conflict",
        ),
    ),
    Command(
        "group.list",
        "groups",
        groups.ListGroups,
        groups.Groups,
        "One's groups, or those that changed",
        Route("GET", "/groups"),
    ),
    Command(
        "group.get",
        "groups",
        groups.GetGroup,
        groups.Group,
        "A group",
        Route("GET", "/groups/{id}"),
        errors=(
            "not_found",
            "not_member",
        ),
    ),
    Command(
        "group.update",
        "groups",
        groups.UpdateGroup,
        groups.Group,
        "Change a group",
        Route("PATCH", "/groups/{id}"),
        errors=(
            "forbidden",
            "not_member",
            "not_found",
            "conflict",
        ),
    ),
    Command(
        "group.dissolve",
        "groups",
        groups.DissolveGroup,
        Empty,
        "Dissolve a group",
        Route("DELETE", "/groups/{id}"),
        errors=(
            "forbidden",
            "not_member",
            "not_found",
        ),
    ),
    Command(
        "group.join",
        "groups",
        groups.JoinGroup,
        groups.JoinedGroup,
        "Join a group, or apply",
        Route("POST", "/groups/{id}/join"),
        errors=(
            "forbidden",
            "not_found",
            "conflict",
        ),
    ),
    Command(
        "group.leave",
        "groups",
        groups.LeaveGroup,
        Empty,
        "Leave a group",
        Route("POST", "/groups/{id}/leave"),
        errors=(
            "forbidden",
            "not_member",
            "not_found",
        ),
    ),
    Command(
        "group.transfer",
        "groups",
        groups.TransferGroup,
        groups.Group,
        "Hand a group over",
        Route("POST", "/groups/{id}/transfer"),
        errors=(
            "forbidden",
            "not_member",
            "not_found",
        ),
    ),
    Command(
        "group.mute_all",
        "groups",
        groups.MuteAll,
        groups.Group,
        "Let only owner and admins write",
        Route("PUT", "/groups/{id}/mute_all"),
        errors=(
            "forbidden",
            "not_member",
            "not_found",
        ),
    ),
    Command(
        "group.members",
        "groups",
        groups.ListMembers,
        groups.Members,
        "The members of a group",
        Route("GET", "/groups/{id}/members"),
        errors=(
            "not_member",
            "not_found",
        ),
    ),
    Command(
        "group.invite",
        "groups",
        groups.InviteMembers,
        groups.InvitedMembers,
        "Take users into a group",
        Route("POST", "/groups/{id}/members"),
        errors=(
            "forbidden",
            "not_member",
            "not_found",
            "blocked",
            "conflict",
        ),
    ),
    Command(
        "group.kick",
        "groups",
        groups.KickMember,
        Empty,
        "Remove a member",
        Route("DELETE", "/groups/{id}/members/{uid}"),
        errors=(
            "forbidden",
            "not_member",
            "not_found",
        ),
    ),
    Command(
        "group.role",
        "groups",
        groups.SetRole,
        groups.GroupMember,
        "Make or unmake an admin",
        Route("PUT", "/groups/{id}/members/{uid}/role"),
        errors=(
            "forbidden",
            "not_member",
            "not_found",
        ),
    ),
    Command(
        "group.mute",
        "groups",
        groups.MuteMember,
        groups.GroupMember,
        "Mute a member for a time",
        Route("PUT", "/groups/{id}/members/{uid}/mute"),
        errors=(
            "forbidden",
            "not_member",
            "not_found",
        ),
    ),
    Command(
        "group.nickname",
        "groups",
        groups.SetGroupNickname,
        groups.GroupMember,
        "Set a member's name in the group",
        Route("PUT", "/groups/{id}/members/{uid}/nickname"),
        errors=(
            "forbidden",
            "not_member",
            "not_found",
        ),
    ),
    Command(
        "group.applications",
        "groups",
        groups.ListGroupApplications,
        groups.GroupApplications,
        "Who asks to be let in",
        Route("GET", "/groups/{id}/applications"),
        errors=(
            "forbidden",
            "not_member",
            "not_found",
        ),
    ),
    Command(
        "group.accept",
        "groups",
        groups.AcceptGroupApplication,
        groups.GroupApplication,
        "Let an applicant in",
        Route("POST", "/groups/{id}/applications/{uid}/accept"),
        errors=(
            "forbidden",
            "not_member",
            "not_found",
            "conflict",
        ),
    ),
    Command(
        "group.reject",
        "groups",
        groups.RejectGroupApplication,
        groups.GroupApplication,
        "Turn an applicant away",
        Route("POST", "/groups/{id}/applications/{uid}/reject"),
        errors=(
            "forbidden",
            "not_member",
            "not_found",
            "conflict",
        ),
    ),
    GROUP_MEMBERSHIPS,
    GROUP_AMONG,
    Command(
        "presence.subscribe",
        "presence",
        presence.SubscribePresence,
        presence.Presences,
        "Presence of friends, now and later",
    ),
    PRESENCE_REPORT,
    Command(
        "typing.send",
        "presence",
        presence.SendTyping,
        Empty,
        "Say that one is typing",
        aliases=("typing",),
        errors=(
            "not_found",
            "forbidden",
            "blocked",
            "not_friend",
            "not_member",
            "muted",
            "rate_limited",
        ),
    ),
)

CLIENT_COMMANDS = tuple(c for c in COMMANDS if not c.internal)
"""Those that a client can send, over the WebSocket or over HTTP."""
BY_TYPE: dict[str, Command] = {c.type: c for c in COMMANDS}
BY_NAME: dict[str, Command] = {name: c for c in CLIENT_COMMANDS for name in (c.type, *c.aliases)}
"""By every `type` a client may write, aliases included."""
