"""Groups, their members and applications, and what is on its way into the log."""

from typing import Any

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql

from shared.schema import create_missing

revision = "0006"
down_revision = "0005"

Id = BigInteger().with_variant(Integer, "sqlite")
Tiny = SmallInteger().with_variant(mysql.TINYINT(), "mysql", "mariadb")
CreatedAt = String(23).with_variant(mysql.TIMESTAMP(fsp=3), "mysql", "mariadb")
OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
}
metadata = MetaData()


def ascii_string(length: int) -> String:
    """A string of ASCII, compared byte by byte."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )


group = Table(
    "group",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("name", String(100), nullable=False),
    Column("avatar", String(255)),
    Column("owner_id", BigInteger, nullable=False),
    Column("max_members", Integer, nullable=False, server_default="500"),
    Column("created_at", CreatedAt, nullable=False),
    Column("announcement", Text, nullable=False),
    Column("join_mode", ascii_string(16), nullable=False),
    Column("past", ascii_string(16), nullable=False),
    Column("mute_all", Tiny, nullable=False, server_default="0"),
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
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("group_id", BigInteger, nullable=False),
    Column("record", Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index("idx_group_outbox_group", "group_id", "id"),
    **OPTIONS,
)


def upgrade() -> None:
    """Skips what an interrupted run has left."""
    create_missing(op.get_bind(), metadata.sorted_tables)
