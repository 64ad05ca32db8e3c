"""The SQL tables, as SQLAlchemy Core. `migrations` creates them; SQL must be valid on MySQL 8, MariaDB and SQLite.

Times are Unix ms in BIGINT columns, but for the source's own `created_at` columns. Names that are compared
(usernames) are stored in a folded form beside the written one, so that no database's collation decides.
"""

from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql

metadata = MetaData()
"""All tables but the monthly ones."""

Id = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in a column of type INTEGER."""


def ascii_string(length: int) -> String:
    """A string of ASCII, compared byte by byte: its index is a quarter of the size of one in utf8mb4."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"),
        "mysql",
        "mariadb",
    )


def folded_string(length: int) -> String:
    """A folded name or an emoji, compared by code point: MySQL's default collation would equate é and e."""
    return String(length).with_variant(
        mysql.VARCHAR(length, collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def fixed_bytes(length: int) -> LargeBinary:
    """Exactly so many bytes, in the row itself."""
    return LargeBinary(length).with_variant(mysql.BINARY(length), "mysql", "mariadb")


Tiny = SmallInteger().with_variant(mysql.TINYINT(), "mysql", "mariadb")

CreatedAt = String(23).with_variant(mysql.TIMESTAMP(fsp=3), "mysql", "mariadb")
"""The source's own times; in UTC."""

OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
}

user = Table(
    "user",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("username", String(64), nullable=False),
    # Folded; NULL once the account is deleted, which frees the name.
    Column("username_key", folded_string(191), unique=True),
    Column("nickname", String(64), nullable=False),
    Column("nickname_key", folded_string(191), nullable=False, index=True),
    Column("avatar", String(255)),
    Column("password_hash", ascii_string(255), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("deleted_ms", BigInteger),
    # Counts the changes of his list of friends. Changing it locks the user's row: whoever changes what two users are
    # to each other changes both first, the lower id before the higher.
    Column("friends_version", BigInteger, nullable=False, server_default="0"),
    **OPTIONS,
)

NORMAL, BLOCKED, GONE = 0, 1, 2
"""`friendship.status`. GONE is ours: neither friends nor blocked; the row stays so that lists learn of it."""

friendship = Table(
    "friendship",
    metadata,
    # One row for each direction, with what `user_id` has decided: the source's columns, then ours.
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("user_id", BigInteger, nullable=False),
    Column("friend_id", BigInteger, nullable=False),
    Column("remark", String(50)),
    Column("status", Tiny, nullable=False, server_default="0"),
    Column("created_at", CreatedAt, nullable=False),
    # Since when they are friends, the same in both directions; NULL: they are not (a stranger may be blocked, too).
    Column("friends_ms", BigInteger),
    # `user.friends_version` of the last change.
    Column("version", BigInteger, nullable=False),
    UniqueConstraint("user_id", "friend_id", name="uk_user_friend"),
    Index("idx_friendship_version", "user_id", "version"),
    **OPTIONS,
)

friend_application = Table(
    "friend_application",
    metadata,
    # The last application in each direction.
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("from_user_id", BigInteger, nullable=False),
    Column("to_user_id", BigInteger, nullable=False),
    Column("greeting", String(200), nullable=False),
    Column("status", Tiny, nullable=False),
    # Not for the eyes of `to_user_id`, who had blocked the other.
    Column("hidden", Tiny, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    UniqueConstraint("from_user_id", "to_user_id", name="uk_friend_application"),
    Index("idx_friend_application_to", "to_user_id", "id"),
    **OPTIONS,
)

session = Table(
    "session",
    metadata,
    Column("id", ascii_string(32), primary_key=True),
    Column("user_id", BigInteger, nullable=False, index=True),
    Column("device_id", ascii_string(64)),
    Column("platform", ascii_string(16), nullable=False),
    Column("refresh_hash", fixed_bytes(32), nullable=False),
    # Of the refresh token: an older one presented again is reuse, but for a repeat of the one
    # before, for a moment from when it was first traded.
    Column("generation", Integer, nullable=False),
    Column("previous_hash", fixed_bytes(32)),
    Column("rotated_ms", BigInteger),
    Column("created_ms", BigInteger, nullable=False),
    Column("last_used_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    **OPTIONS,
)

group = Table(
    "group",
    metadata,
    # The source's columns, then ours. Whoever changes a group or its members first counts `version` up, which locks
    # the row: all changes of one group follow one another.
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("name", String(100), nullable=False),
    Column("avatar", String(255)),
    Column("owner_id", BigInteger, nullable=False),
    Column("max_members", Integer, nullable=False, server_default="500"),
    Column("created_at", CreatedAt, nullable=False),
    Column("announcement", Text, nullable=False),
    Column("join_mode", ascii_string(16), nullable=False),
    # What those who join from now on see of the conversation.
    Column("past", ascii_string(16), nullable=False),
    Column("mute_all", Tiny, nullable=False, server_default="0"),
    # Number of its rows in `group_member`.
    Column("member_count", Integer, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("members_version", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Column("dissolved_ms", BigInteger),
    Index("idx_owner_id", "owner_id"),
    **OPTIONS,
)

group_member = Table(
    "group_member",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("group_id", BigInteger, nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("role", Tiny, nullable=False, server_default="0"),
    Column("nickname", String(64)),
    # For those who read the table; `muted_ms` decides.
    Column("muted_until", String(23).with_variant(mysql.DATETIME(fsp=3), "mysql", "mariadb")),
    Column("joined_at", CreatedAt, nullable=False),
    Column("muted_ms", BigInteger, nullable=False, server_default="0"),
    Column("joined_ms", BigInteger, nullable=False),
    UniqueConstraint("group_id", "user_id", name="uk_group_user"),
    Index("idx_group_member_user", "user_id", "group_id"),
    **OPTIONS,
)

group_application = Table(
    "group_application",
    metadata,
    # The last application of a user to a group.
    Column("group_id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("greeting", String(200), nullable=False),
    Column("status", ascii_string(16), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index("idx_group_application_status", "group_id", "status", "created_ms", "user_id"),
    **OPTIONS,
)

group_outbox = Table(
    "group_outbox",
    metadata,
    # Changes that are committed and may not be in the log yet, in the order of each group: records, as JSON.
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("group_id", BigInteger, nullable=False),
    Column("record", Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index("idx_group_outbox_group", "group_id", "id"),
    **OPTIONS,
)

departure = Table(
    "departure",
    metadata,
    # Deleted accounts whose seats in groups are not given up yet.
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    **OPTIONS,
)

conversation = Table(
    "conversation",
    metadata,
    Column("conversation_id", ascii_string(64), primary_key=True),
    Column("max_seq", BigInteger, nullable=False),
    Column("max_rev", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),  # log time of the newest message
    # `rev` of the newest change of a message (reads count in max_rev only): the hot cache is compared with it.
    Column("message_rev", BigInteger, nullable=False, server_default="0"),
    # Of a group: how often its members have changed.
    Column("members_version", BigInteger, nullable=False, server_default="0"),
    # No message has a UUIDv7 above this as its client_msg_id (ADR 19), if max_uuid_seq is max_seq. "~": unknown.
    Column("max_uuid", ascii_string(36), nullable=False, server_default=""),
    Column("max_uuid_seq", BigInteger, nullable=False, server_default="0"),
    **OPTIONS,
)

conversation_month = Table(
    "conversation_month",
    metadata,
    # Which monthly tables hold a conversation: a reader of `seq` finds the table without searching them all.
    Column("conversation_id", ascii_string(64), primary_key=True),
    Column("month", Integer, primary_key=True, autoincrement=False),
    Column("first_seq", BigInteger, nullable=False),
    **OPTIONS,
)

user_conversation = Table(
    "user_conversation",
    metadata,
    # Conversations of a user. The timeline writes the row with a private conversation's first message, or when a user
    # joins a group. `history` owns cleared_seq, pinned, muted and draft; neither touches the other's columns.
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("conversation_id", ascii_string(64), primary_key=True),
    Column("read_seq", BigInteger, nullable=False, server_default="0"),
    Column("read_rev", BigInteger, nullable=False, server_default="0"),
    Column("delivered_seq", BigInteger, nullable=False, server_default="0"),
    # The user sees messages with from_seq < seq ≤ until_seq (NULL: he is still in it), and lists those after
    # cleared_seq.
    Column("from_seq", BigInteger, nullable=False, server_default="0"),
    Column("until_seq", BigInteger),
    Column("cleared_seq", BigInteger, nullable=False, server_default="0"),
    Column("pinned", Tiny, nullable=False, server_default="0"),
    Column("muted", Tiny, nullable=False, server_default="0"),
    Column("draft", Text),
    # Who is in a conversation, for its receipts.
    Index("idx_user_conversation_conversation_id", "conversation_id"),
    **OPTIONS,
)

message_change = Table(
    "message_change",
    metadata,
    # One row for each change of a message: a device that was away asks for those after its `rev`.
    Column("conversation_id", ascii_string(64), primary_key=True),
    Column("rev", BigInteger, primary_key=True, autoincrement=False),
    Column("msg_id", BigInteger, nullable=False),
    **OPTIONS,
)

message_edit = Table(
    "message_edit",
    metadata,
    # The content before the edit `rev`, which was at `edited_ms`; removed with a recall.
    Column("msg_id", BigInteger, primary_key=True, autoincrement=False),
    Column("rev", BigInteger, primary_key=True, autoincrement=False),
    Column("content", Text, nullable=False),
    Column("edited_ms", BigInteger, nullable=False),
    **OPTIONS,
)

message_reaction = Table(
    "message_reaction",
    metadata,
    # Who reacted with what; `rev` is the change that did it, and so their order.
    Column("msg_id", BigInteger, primary_key=True, autoincrement=False),
    Column("emoji", folded_string(32), primary_key=True),
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("rev", BigInteger, nullable=False),
    **OPTIONS,
)

conversation_pin = Table(
    "conversation_pin",
    metadata,
    Column("conversation_id", ascii_string(64), primary_key=True),
    Column("msg_id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", BigInteger, nullable=False),
    Column("pinned_ms", BigInteger, nullable=False),
    **OPTIONS,
)

message_mention = Table(
    "message_mention",
    metadata,
    # Whom messages address, for counting unread mentions; user 0: everybody. Only of messages that have mentions.
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("conversation_id", ascii_string(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    **OPTIONS,
)

message_key = Table(
    "message_key",
    metadata,
    # Idempotence, for ever: 128 bits of a hash over (conversation, sender, client_msg_id), with the whole answer.
    Column(
        "key",
        fixed_bytes(16),
        primary_key=True,
    ),
    Column(
        "digest",
        fixed_bytes(8),
        nullable=False,
    ),
    Column("msg_id", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    **OPTIONS,
)

log_progress = Table(
    "log_progress",
    metadata,
    # How far the timeline has stored a partition; changed only by compare-and-set on the whole old row.
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("counter", Integer, nullable=False),
    **OPTIONS,
)

reader_progress = Table(
    "reader_progress",
    metadata,
    # How far other readers of the log are that keep their place here; none of their rows decides anything.
    Column("reader", ascii_string(32), primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next", BigInteger, nullable=False),
    **OPTIONS,
)

message_token = Table(
    "message_token",
    metadata,
    # Words and pairs of letters of messages (`shared.words`), written by `search_index`: who searches begins with the
    # conversations of one user, and the newest message has the highest id.
    Column("conversation_id", ascii_string(64), primary_key=True),
    Column(
        "token",
        LargeBinary(32).with_variant(mysql.VARBINARY(32), "mysql", "mariadb"),
        primary_key=True,
    ),
    Column("msg_id", BigInteger, primary_key=True, autoincrement=False),
    Index("idx_message_token_message", "conversation_id", "msg_id"),
    **OPTIONS,
)

message_report = Table(
    "message_report",
    metadata,
    # What users want the operators to look at, once per user and message, with the content as it was then: its sender
    # may recall or edit it.
    Column("msg_id", BigInteger, primary_key=True, autoincrement=False),
    Column("reporter_id", BigInteger, primary_key=True, autoincrement=False),
    Column("conversation_id", ascii_string(64), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("content", String(500), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    **OPTIONS,
)


@cache
def message_table(month: int) -> Table:
    """`message_<YYYYMM>`: the source's columns and ours.

    `id` is the Snowflake as a number, `msg_id` the same as text.
    """
    name = f"message_{month}"
    return Table(
        name,
        MetaData(),
        Column("id", Id, primary_key=True, autoincrement=False),
        Column("msg_id", ascii_string(64), nullable=False),
        Column("conversation_id", ascii_string(64), nullable=False),
        Column("sender_id", BigInteger, nullable=False),
        Column("receiver_id", BigInteger),
        Column("group_id", BigInteger),
        Column(
            "msg_type",
            Tiny,
            nullable=False,
        ),
        Column("content", Text, nullable=False),
        Column(
            "status",
            Tiny,
            nullable=False,
        ),
        Column(
            "created_at",
            CreatedAt,
            nullable=False,
        ),
        Column("seq", BigInteger, nullable=False),
        Column("rev", BigInteger, nullable=False),
        Column("client_msg_id", ascii_string(64), nullable=False),
        Column("reply_to", ascii_string(64)),
        Column("mentions", Text),
        Column("file_id", ascii_string(64)),
        Column("extra", Text),
        Column("edited_ms", BigInteger),
        Column("forward", Text),  # JSON of schemas.messages.Origin
        Column("reactions", Text),  # JSON list of schemas.messages.Reaction, NULL if there are none
        Column("pinned", Tiny, nullable=False, server_default="0"),
        UniqueConstraint("msg_id", name=f"uk_{name}_msg_id"),
        UniqueConstraint("conversation_id", "seq", name=f"uk_{name}_conversation_seq"),
        # Of the source's indexes, the one on conversation_id alone is left out: it is a prefix of the next.
        Index(f"idx_{name}_conv_time", "conversation_id", "created_at"),
        Index(f"idx_{name}_sender_id", "sender_id"),
        Index(f"idx_{name}_created_at", "created_at"),
        **OPTIONS,
    )
