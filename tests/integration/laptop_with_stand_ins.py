"""The supervisor with real servers, but with stand-ins for our own processes.

`BROKEN=edge` (or functions, migrations): that one ends at once.
"""

import asyncio
import os
import sys
from dataclasses import replace

from laptop.__main__ import say
from laptop.data import DataFolder
from laptop.plan import make_plan
from laptop.process import LaptopError, Process
from laptop.supervisor import Supervisor
from shared.settings import Settings

FUNCTIONS = """
import signal
print('{"message": "serving all"}', flush=True)
signal.pause()
"""

# Like the real edge it has a worker process, which here survives its parent unless somebody ends it.
EDGE = """
import http.server, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

BROKEN = "import sys; print('first'); sys.exit('the reason')"


def main() -> None:
    data = DataFolder(Settings.load().data_dir)
    plan = make_plan(Settings.load(), os.environ, data)
    env = os.environ | {"IM_DATA_DIR": str(data.path)}

    def python(name: str, code: str) -> Process:
        code = BROKEN if os.environ.get("BROKEN") == name else code
        command = [sys.executable, "-c", code, str(plan.settings.edge_port)]
        return Process(name, command, folder=data.path, log=data.log(name), env=env)

    plan = replace(
        plan,
        migrations=python("migrations", "print('done')"),
        functions=python("functions", FUNCTIONS),
        edge=python("edge", EDGE),
    )
    try:
        asyncio.run(Supervisor(plan, data, say).run())
    except LaptopError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
