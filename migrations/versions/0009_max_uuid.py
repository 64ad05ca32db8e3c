"""The greatest UUIDv7 among a conversation's client_msg_ids, so that greater ones need no look-up."""

from alembic import op
from sqlalchemy import BigInteger, Column, String, inspect
from sqlalchemy.dialects import mysql

revision = "0009"
down_revision = "0008"

UUID = String(36).with_variant(
    mysql.VARCHAR(36, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
)


def upgrade() -> None:
    """Adds the columns that an interrupted run has not. Of conversations that are there nothing is known by them, so
    their messages are looked up as before.
    """
    there = {column["name"] for column in inspect(op.get_bind()).get_columns("conversation")}
    for column in (
        Column("max_uuid", UUID, nullable=False, server_default=""),
        Column("max_uuid_seq", BigInteger, nullable=False, server_default="0"),
    ):
        if column.name not in there:
            op.add_column("conversation", column)
