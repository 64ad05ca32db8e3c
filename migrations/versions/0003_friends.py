"""Friends and their applications; the version of a user's list of friends."""

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
    UniqueConstraint,
    inspect,
)
from sqlalchemy.dialects import mysql

from shared.schema import create_missing

revision = "0003"
down_revision = "0002"

Id = BigInteger().with_variant(Integer, "sqlite")
Tiny = SmallInteger().with_variant(mysql.TINYINT(), "mysql", "mariadb")
OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
}
metadata = MetaData()

friendship = Table(
    "friendship",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("user_id", BigInteger, nullable=False),
    Column("friend_id", BigInteger, nullable=False),
    Column("remark", String(50)),
    Column("status", Tiny, nullable=False, server_default="0"),
    Column(
        "created_at",
        String(23).with_variant(mysql.TIMESTAMP(fsp=3), "mysql", "mariadb"),
        nullable=False,
    ),
    Column("friends_ms", BigInteger),
    Column("version", BigInteger, nullable=False),
    UniqueConstraint("user_id", "friend_id", name="uk_user_friend"),
    Index("idx_friendship_version", "user_id", "version"),
    **OPTIONS,
)

friend_application = Table(
    "friend_application",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("from_user_id", BigInteger, nullable=False),
    Column("to_user_id", BigInteger, nullable=False),
    Column("greeting", String(200), nullable=False),
    Column("status", Tiny, nullable=False),
    Column("hidden", Tiny, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    UniqueConstraint("from_user_id", "to_user_id", name="uk_friend_application"),
    Index("idx_friend_application_to", "to_user_id", "id"),
    **OPTIONS,
)


def upgrade() -> None:
    """Skips what an interrupted run has left."""
    connection = op.get_bind()
    if "friends_version" not in {c["name"] for c in inspect(connection).get_columns("user")}:
        op.add_column(
            "user", Column("friends_version", BigInteger, nullable=False, server_default="0")
        )
    create_missing(connection, metadata.sorted_tables)
