"""Changes of messages, positions of readers, and what the conversation list holds."""

from typing import Any

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    inspect,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateColumn

from shared.schema import create_missing

revision = "0005"
down_revision = "0004"

metadata = MetaData()
OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
}
CONVERSATION_ID = String(64).with_variant(
    mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
)
EMOJI = String(32).with_variant(mysql.VARCHAR(32, collation="utf8mb4_bin"), "mysql", "mariadb")
TINY = SmallInteger().with_variant(mysql.TINYINT(), "mysql", "mariadb")


def _key(name: str) -> "Column[Any]":
    return Column(name, BigInteger, primary_key=True, autoincrement=False)


def _zero(name: str) -> "Column[Any]":
    return Column(name, BigInteger, nullable=False, server_default="0")


def _flag(name: str) -> "Column[Any]":
    return Column(name, TINY, nullable=False, server_default="0")


Table(
    "message_change",
    metadata,
    Column("conversation_id", CONVERSATION_ID, primary_key=True),
    _key("rev"),
    Column("msg_id", BigInteger, nullable=False),
    **OPTIONS,
)
Table(
    "message_edit",
    metadata,
    _key("msg_id"),
    _key("rev"),
    Column("content", Text, nullable=False),
    Column("edited_ms", BigInteger, nullable=False),
    **OPTIONS,
)
Table(
    "message_reaction",
    metadata,
    _key("msg_id"),
    Column("emoji", EMOJI, primary_key=True),
    _key("user_id"),
    Column("rev", BigInteger, nullable=False),
    **OPTIONS,
)
Table(
    "conversation_pin",
    metadata,
    Column("conversation_id", CONVERSATION_ID, primary_key=True),
    _key("msg_id"),
    Column("user_id", BigInteger, nullable=False),
    Column("pinned_ms", BigInteger, nullable=False),
    **OPTIONS,
)
Table(
    "message_mention",
    metadata,
    _key("user_id"),
    Column("conversation_id", CONVERSATION_ID, primary_key=True),
    _key("seq"),
    **OPTIONS,
)


def upgrade() -> None:
    """Adds tables, and columns to those that are there, the monthly ones too."""
    connection = op.get_bind()
    create_missing(connection, metadata.sorted_tables)
    _add(connection, "conversation", _zero("message_rev"), _zero("members_version"))
    _add(
        connection,
        "user_conversation",
        *map(_zero, ("read_seq", "read_rev", "delivered_seq", "from_seq")),
        Column("until_seq", BigInteger),
        _zero("cleared_seq"),
        _flag("pinned"),
        _flag("muted"),
        Column("draft", Text),
    )
    for name in inspect(connection).get_table_names():
        if name.startswith("message_2"):
            _add(
                connection,
                name,
                Column("edited_ms", BigInteger),
                Column("forward", Text),
                Column("reactions", Text),
                _flag("pinned"),
            )


def _add(connection: Connection, table: str, *columns: "Column[Any]") -> None:
    """Adds the columns that an interrupted run has not added yet, all in one statement where that can be."""
    there = {column["name"] for column in inspect(connection).get_columns(table)}
    adds = [
        f"ADD COLUMN {CreateColumn(column).compile(dialect=connection.dialect)}"
        for column in columns
        if column.name not in there
    ]
    for alteration in (
        adds if connection.dialect.name == "sqlite" else filter(None, [", ".join(adds)])
    ):
        op.execute(f"ALTER TABLE {table} {alteration}")
