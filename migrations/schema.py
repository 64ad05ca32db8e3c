"""Brings the SQL schema up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.ids import month_of, now_ms
from shared.months import ensure_months, next_month
from shared.schema import schema_lock


def alembic_config(connection: Connection) -> Config:
    """Alembic's settings; there is no alembic.ini, since the address comes from IM_DB_URL."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


async def upgrade(engine: AsyncEngine) -> None:
    """Runs the missing revisions, then makes the message tables of this and the next month."""

    def run(connection: Connection) -> None:
        with schema_lock(connection):
            command.upgrade(alembic_config(connection), "head")

    async with engine.begin() as connection:
        await connection.run_sync(run)
    month = month_of(now_ms())
    await ensure_months(engine, (month, next_month(month)))
