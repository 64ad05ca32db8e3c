"""`python -m edge`: IM_EDGE_WORKERS processes on one port; the first one only supervises if there are several."""

import sys

from edge.workers import main

if __name__ == "__main__":
    sys.exit(main())
