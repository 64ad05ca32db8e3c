"""The index of words for `message.search`, and messages that were reported."""

from typing import Any

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
)
from sqlalchemy.dialects import mysql

from shared.schema import create_missing

revision = "0004"
down_revision = "0003"

OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
}
ConversationId = String(64).with_variant(
    mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
)
metadata = MetaData()

message_token = Table(
    "message_token",
    metadata,
    Column("conversation_id", ConversationId, primary_key=True),
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
    Column("msg_id", BigInteger, primary_key=True, autoincrement=False),
    Column("reporter_id", BigInteger, primary_key=True, autoincrement=False),
    Column("conversation_id", ConversationId, nullable=False),
    Column("reason", String(500), nullable=False),
    Column("content", String(500), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    **OPTIONS,
)


def upgrade() -> None:
    """Adds the tables; those that an interrupted run has left stay."""
    create_missing(op.get_bind(), [message_token, message_report])
