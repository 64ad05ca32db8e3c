"""How far the readers of the log are that keep their place in SQL."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table
from sqlalchemy.dialects import mysql

from shared.schema import create_missing

revision = "0002"
down_revision = "0001"

reader_progress = Table(
    "reader_progress",
    MetaData(),
    Column(
        "reader",
        String(32).with_variant(
            mysql.VARCHAR(32, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
        ),
        primary_key=True,
    ),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next", BigInteger, nullable=False),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
    mariadb_engine="InnoDB",
    mariadb_charset="utf8mb4",
)


def upgrade() -> None:
    """Adds the table; one that an interrupted run has left stays."""
    create_missing(op.get_bind(), [reader_progress])
