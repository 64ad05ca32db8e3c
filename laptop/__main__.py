"""`python -m laptop`: the whole of Natterjack on this machine. Configured by IM_* environment variables only."""

import argparse
import asyncio
import os
import sys
from contextlib import suppress

from laptop.data import DataFolder
from laptop.plan import make_plan
from laptop.process import LaptopError
from laptop.supervisor import Supervisor
from shared.settings import Settings, SettingsError


def say(text: str) -> None:
    """Shows a line; that the terminal is gone must not keep the rest from being stopped."""
    with suppress(OSError):
        print(text, flush=True)


def main() -> int:
    """Runs until Ctrl-C or SIGTERM. Returns the exit status; what went wrong is one line on stderr."""
    argparse.ArgumentParser(prog="./task dev", description=__doc__).parse_args()
    try:
        settings = Settings.load()
        data = DataFolder(settings.data_dir)
        try:
            plan = make_plan(settings, os.environ, data)
            asyncio.run(Supervisor(plan, data, say).run())
        finally:
            data.close()
    except (LaptopError, SettingsError) as error:
        print(f"natterjack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    say("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
