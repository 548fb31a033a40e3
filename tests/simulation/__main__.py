"""`python -m tests.simulation`. (What other processes run stands in `many`: they don't import this file.)"""

import sys

from .many import main

if __name__ == "__main__":
    sys.exit(main())
