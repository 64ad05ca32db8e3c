"""Structured logs: one JSON object a line on stderr. Never contents of messages, tokens or passwords."""

import json
import logging
import os
import sys
import time


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "service", "logger", "message", "error"?}`."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON; an exception's traceback stands in `error`."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def set_up_logging(service: str) -> None:
    """Sends all logs of this process to stderr. `IM_LOG_LEVEL` (info by default) sets how much."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    level = logging.getLevelNamesMapping().get(
        os.environ.get("IM_LOG_LEVEL", "info").upper(), logging.INFO
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
