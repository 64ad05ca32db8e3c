"""`python -m migrations`: prepares SQL, the log and the bucket. May be run again at any time."""

import asyncio
import logging
import sys

from minio.error import MinioException
from sqlalchemy.exc import SQLAlchemyError
from urllib3.exceptions import HTTPError

from migrations.bucket import ensure_bucket
from migrations.schema import upgrade
from shared.adapters.event_stream import ensure_event_stream
from shared.adapters.log import ensure_topics
from shared.adapters.sql import open_engine
from shared.log import LogError
from shared.settings import Settings, SettingsError


async def sql(settings: Settings) -> None:
    """The SQL schema, and the message tables of this and the next month."""
    engine = open_engine(settings.require("db_url"))
    try:
        await upgrade(engine)
    finally:
        await engine.dispose()


async def prepare(settings: Settings) -> list[str]:
    """Prepares all servers side by side. Returns one line for each that could not be prepared."""
    steps = {
        "IM_DB_URL": sql(settings),
        "IM_LOG_URL": ensure_topics(settings),
        "IM_NATS_URL": ensure_event_stream(settings),
    }
    if settings.s3_endpoint:
        steps["IM_S3_ENDPOINT"] = asyncio.to_thread(ensure_bucket, settings)
    results = await asyncio.gather(*steps.values(), return_exceptions=True)
    problems = []
    for name, result in zip(steps, results, strict=True):
        if isinstance(result, SettingsError):
            problems.append(str(result))
        elif isinstance(result, (SQLAlchemyError, LogError, OSError, MinioException, HTTPError)):
            problems.append(f"{name}: {str(result).splitlines()[0]}")
        elif isinstance(result, BaseException):
            raise result
    return list(dict.fromkeys(problems))


def main() -> int:
    """Status 1 if a server could not be prepared, 2 if a setting is wrong; one line says which."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        problems = asyncio.run(prepare(Settings.load()))
    except SettingsError as error:
        print(f"migrations: {error}", file=sys.stderr)
        return 2
    for problem in problems:
        print(f"migrations: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
