"""One example of every Struct of the contract: typed, so that it cannot drift from the Structs."""

from typing import Any

import msgspec

from schemas import (
    auth,
    contents,
    conversations,
    errors,
    events,
    facts,
    friends,
    groups,
    internal,
    messages,
    presence,
    records,
    search,
    users,
)
from schemas.types import Empty, Model

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2lnbmF0dXJl"  # noqa: S105 - a shape
CLIENT_MSG_ID = "01937c5e-8f3a-7cc1-9d0e-5f6b2a4c8e11"
NOW = 1_767_225_600_000
CONVERSATION = "p_7_8"

_me = users.Me(7, "alice", "Alice", created_at=NOW)
_bob = users.User(8, "bob", "Bob")
_tokens = auth.Tokens(TOKEN, "Qm9i.1.c2VjcmV0", 900, _me)
_session = auth.Session("Qm9i", NOW, NOW, "desktop", "thinkpad", current=True)
_message: dict[str, Any] = {
    "msg_id": "132271570944000001",
    "conversation_id": CONVERSATION,
    "sender_id": 7,
    "msg_type": 1,
    "content": "Hello Bob",
    "timestamp": NOW,
    "seq": 42,
    "client_msg_id": CLIENT_MSG_ID,
    "status": 0,
    "receiver_id": 8,
}
_named: dict[str, Any] = {"conversation_id": CONVERSATION, "msg_id": _message["msg_id"], "seq": 42}
_likes = [messages.Reaction("👍", 1, [8])]
_changed = {
    "recalled": _message | {"status": 1, "content": "", "rev": 3},
    "edited": _message | {"content": "Hello, Bob!", "edited_at": NOW + 60_000, "rev": 1},
    "reacted": _message | {"reactions": _likes, "rev": 2},
    "pinned": _message | {"pinned": True, "rev": 2},
}
_page: dict[str, Any] = {
    "messages": [messages.Message(**_message)],
    "has_more": False,
    "max_seq": 42,
    "changes": [],
    "max_rev": 0,
}
_asked: dict[str, Any] = {
    "conversation_id": CONVERSATION,
    "user_id": 7,
    "at": NOW,
    "reply": "_INBOX.e.Zm9ydHktdHdvLWJpdHMtMQ.17",
    "conn": "c4kQ2mXv",
}
_position = messages.Position(CONVERSATION, after_seq=41)
_reads = [messages.ReadState(7, 42, 42), messages.ReadState(8, 40, 42)]
_synced = messages.SyncedConversation(
    **_page, upto_rev=0, reads=_reads, conversation_id=CONVERSATION
)
_state: dict[str, Any] = {
    "conversation_id": CONVERSATION,
    "unread": 2,
    "mentions": 0,
    "max_seq": 42,
    "max_rev": 4,
    "read_seq": 40,
    "cleared_seq": 0,
    "pinned": True,
    "muted": False,
    "draft": "Hello B",
}
_summary = conversations.ConversationSummary(**_state, last_message=messages.Message(**_message))
_pin = conversations.PinnedMessage(messages.Message(**_message | {"pinned": True}), 8, NOW)
_session_of = internal.SessionOf(7, "Qm9i")
_memberships = internal.UserMemberships(7, [internal.Membership(5, 17)])

_application = friends.Application(
    3, 7, 8, "Alice from work", "pending", NOW, NOW + 30 * 86_400_000
)
_friend = friends.Friend(8, "bob", "Bob", remark="Bob (work)", since=NOW)
_presence = presence.Presence(8, online=True, devices=["ios", "web"], at=NOW)
_info: dict[str, Any] = {
    "group_id": 5,
    "name": "Friday dinner",
    "owner_id": 7,
    "max_members": 500,
    "member_count": 2,
    "join": "approval",
    "past": "hidden",
    "version": 23,
    "members_version": 17,
    "created_at": NOW,
}
_group = groups.Group(**_info, role=2, joined_at=NOW)
_member = groups.GroupMember(8, 0, NOW, "Bobby")
_asks = groups.GroupApplication(5, 9, NOW, greeting="Carol from work")
_connection = presence.Connection(7, "c4kQ2mXv", "Qm9i")

EXAMPLES: tuple[Model, ...] = (
    Empty(),
    auth.Register("alice", "correct horse", "Alice"),
    auth.Login("alice", "correct horse", "thinkpad", "desktop"),
    _tokens,
    auth.Refresh("Qm9i.1.c2VjcmV0"),
    auth.Logout(),
    auth.ListSessions(),
    _session,
    auth.Sessions([_session], None),
    auth.RevokeSession("Qm9i"),
    auth.ChangePassword("correct horse", "battery staple"),
    _me,
    _bob,
    users.GetMe(),
    users.UpdateMe(nickname="Alice L."),
    users.DeleteMe("correct horse"),
    users.GetUser(8),
    users.SearchUsers("bo", limit=20),
    users.Users([_bob], None),
    contents.ImageContent("Zm9v", 48_213, "image/jpeg", "frog.jpg", width=1280, height=960),
    contents.FileContent("Zm9v", 120_400, "application/pdf", "agenda.pdf"),
    contents.VoiceContent("Zm9v", 9_120, "audio/ogg", duration_ms=4_200),
    contents.VideoContent(
        "Zm9v", 2_048_000, "video/mp4", duration_ms=12_000, width=1280, height=720
    ),
    messages.SendMessage(CLIENT_MSG_ID, "Hello Bob", receiver_id=8),
    messages.MessageAck(_message["msg_id"], CLIENT_MSG_ID, CONVERSATION, 42, NOW),
    messages.Message(**_message),
    messages.Origin(_message["msg_id"], CONVERSATION, 7, NOW),
    *_likes,
    messages.RecallMessage(_message["msg_id"]),
    messages.EditMessage(_message["msg_id"], "Hello, Bob!"),
    messages.ReactToMessage(_message["msg_id"], "👍"),
    messages.PinMessage(_message["msg_id"]),
    messages.Changed(**_named, rev=1, timestamp=NOW + 60_000),
    messages.ReadMessages(CONVERSATION, 42),
    messages.ReadPosition(CONVERSATION, 42, 4, unread=0, mentions=0),
    messages.ConfirmDelivery(CONVERSATION, 42),
    messages.GetHistory(CONVERSATION, before_seq=43, limit=20),
    messages.History(**_page),
    _position,
    messages.Sync([_position]),
    _synced,
    messages.Synced([_synced], None),
    conversations.ListConversations(limit=20),
    _summary,
    conversations.Conversations([_summary], None),
    conversations.UpdateConversation(CONVERSATION, pinned=True, draft="Hello B"),
    conversations.ConversationState(**_state),
    conversations.ClearConversation(CONVERSATION, upto_seq=40),
    conversations.ListReceipts(_message["msg_id"]),
    conversations.Receipts([], [conversations.Receipt(8)], 0, 1, None),
    conversations.ListEdits(_message["msg_id"]),
    conversations.Edits([conversations.Edit(1, "Hello Bob", NOW + 60_000)]),
    conversations.ListPins(CONVERSATION),
    _pin,
    conversations.Pins([_pin], None),
    events.Ready(7, "c4kQ2mXv", 25),
    events.MessagePushed(**_message),
    events.Recalled(**_named, rev=3, user_id=7, timestamp=NOW + 90_000),
    events.Edited(
        **_named, rev=1, user_id=7, content="Hello, Bob!", mentions=[], edited_at=NOW + 60_000
    ),
    events.Reacted(**_named, rev=2, user_id=8, emoji="👍", remove=False, reactions=_likes),
    events.Pinned(**_named, rev=2, user_id=8, remove=False),
    events.Read(CONVERSATION, 8, 42, 4),
    events.Delivered(CONVERSATION, 8, 42),
    events.ConversationChanged(**_state),
    events.Head(CONVERSATION, 42, 4),
    events.Resync(),
    events.Draining(),
    events.Kicked("Qm9i", "logged out"),
    events.GroupJoined(5, 17, 9),
    events.GroupLeft(5, 18, "kicked"),
    events.GroupMembers(5, 17, joined=[7, 8]),
    events.GroupUpdated(groups.GroupInfo(**_info)),
    events.GroupMemberUpdated(5, 24, _member),
    events.GroupApplied(_asks),
    groups.CreateGroup("Friday dinner", [8], join="approval"),
    groups.GetGroup(5),
    groups.ListGroups(changed_after=NOW),
    _group,
    groups.Groups([_group], None, [5], NOW),
    groups.UpdateGroup(5, name="Saturday dinner"),
    groups.DissolveGroup(5),
    groups.JoinGroup(5, "Carol from work"),
    groups.JoinedGroup(5, "applied"),
    groups.LeaveGroup(5),
    groups.ListMembers(5, limit=200),
    _member,
    groups.Members([_member], 17, None),
    groups.InviteMembers(5, [9, 10]),
    groups.InvitedMembers(5, [9, 10]),
    groups.KickMember(5, 9),
    groups.TransferGroup(5, 8),
    groups.SetRole(5, 8, 1),
    groups.MuteMember(5, 9, NOW + 3_600_000),
    groups.MuteAll(5, on=True),
    groups.SetGroupNickname(5, 8, "Bobby"),
    _asks,
    groups.ListGroupApplications(5),
    groups.GroupApplications([_asks], None),
    groups.AcceptGroupApplication(5, 9),
    groups.RejectGroupApplication(5, 9),
    internal.CheckSessions([_session_of]),
    internal.EndedSessions([_session_of]),
    internal.GetMemberships([7, 8]),
    _memberships,
    internal.Memberships([_memberships]),
    internal.GetAmong(5, [7, 8]),
    internal.Among(17, [7]),
    facts.MessageSent(
        id=f"message.sent.{_message['msg_id']}",
        trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        data=messages.Message(**_message),
    ),
    facts.MessageRecalled(
        id=f"message.recalled.{_message['msg_id']}.3",
        data=messages.Message(**_changed["recalled"]),
        user_id=7,
    ),
    facts.MessageEdited(
        id=f"message.edited.{_message['msg_id']}.1",
        data=messages.Message(**_changed["edited"]),
        user_id=7,
    ),
    facts.MessageReacted(
        id=f"message.reacted.{_message['msg_id']}.2",
        data=messages.Message(**_changed["reacted"]),
        user_id=8,
    ),
    facts.MessagePinned(
        id=f"message.pinned.{_message['msg_id']}.2",
        data=messages.Message(**_changed["pinned"]),
        user_id=8,
    ),
    records.SendRequested(
        **_asked,
        client_msg_id=CLIENT_MSG_ID,
        msg_type=1,
        content="Hello Bob",
        receiver_id=8,
    ),
    records.SystemRequested(
        conversation_id="g_5",
        user_id=9,
        at=NOW,
        client_msg_id="c1f0",
        content='{"kind":"group.joined","user_ids":[7]}',
        joined=[7],
        members_version=17,
        answer=msgspec.Raw(b"{}"),
    ),
    friends.ApplyFriend(8, "Alice from work"),
    _application,
    friends.ListApplications(direction="in"),
    friends.Applications([_application], None),
    friends.AcceptApplication(3),
    friends.RejectApplication(3),
    _friend,
    friends.ListFriends(after_version=11),
    friends.Friends([_friend], [9], 12, None),
    friends.RemarkFriend(8, "Bob (work)"),
    friends.DeleteFriend(8),
    friends.BlockUser(9),
    friends.UnblockUser(9),
    friends.ListBlocked(),
    friends.BlockedUsers([friends.Friend(9, "carol", "Carol", blocked=True)], None),
    events.FriendApplied(_application),
    events.FriendRejected(msgspec.structs.replace(_application, status="rejected")),
    events.FriendAccepted(3, _friend, 12),
    events.FriendUpdated(_friend, 13),
    events.FriendDeleted(9, 14),
    _presence,
    presence.SubscribePresence([8]),
    presence.Presences([_presence], 300),
    presence.SendTyping(receiver_id=8),
    _connection,
    presence.ReportPresence("Zm9ydHktdHdv", joined=[_connection], begins=True),
    presence.PresenceReported(known=True),
    events.PresencePushed(8, online=False, last_seen=NOW, at=NOW),
    events.TypingPushed(CONVERSATION, 7, typing=True),
    records.RecallRequested(**_asked, msg_id=_message["msg_id"], window_ms=120_000),
    records.EditRequested(**_asked, msg_id=_message["msg_id"], content="Hello, Bob!"),
    records.ReactRequested(**_asked, msg_id=_message["msg_id"], emoji="👍"),
    records.PinRequested(**_asked, msg_id=_message["msg_id"]),
    records.ReadRequested(**_asked, seq=42),
    records.DeliveredRequested(**_asked, seq=42),
    search.SearchMessages("harbour ten"),
    search.FoundMessages([messages.Message(**_message)], None),
    search.ReportMessage(_message["msg_id"], "an insult"),
    errors.ErrorBody("not_found", "there is no user 9", "4bf92f3577b34da6a3ce929d0e0e4736"),
)
_BY_TYPE = {type(example): example for example in EXAMPLES}


def example(struct: type[Model]) -> Any:
    """The example of a Struct as plain JSON values.

    Raises: KeyError if it has none.
    """
    return msgspec.json.decode(msgspec.json.encode(_BY_TYPE[struct]))
