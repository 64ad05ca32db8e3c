"""The functions: one folder each, independent of one another. `python -m functions [NAME …]` runs them.

IM_FUNCTIONS_PATH names folders with further ones, so that a team's functions need not stand in this repository.
"""

import os

__path__ += [
    folder for folder in os.environ.get("IM_FUNCTIONS_PATH", "").split(os.pathsep) if folder
]
