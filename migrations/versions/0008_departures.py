"""Deleted accounts whose seats in groups are to be given up."""

from alembic import op
from sqlalchemy import BigInteger, Column, MetaData, Table

from shared.schema import create_missing

revision = "0008"
down_revision = "0007"

metadata = MetaData()

departure = Table(
    "departure",
    metadata,
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
    mariadb_engine="InnoDB",
    mariadb_charset="utf8mb4",
)


def upgrade() -> None:
    """Adds the table; one that an interrupted run has left stays."""
    create_missing(op.get_bind(), [departure])
