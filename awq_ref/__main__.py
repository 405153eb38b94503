"""`python -m awq_ref`: the command line, where its script is not on the PATH."""

import sys

from awq_ref.cli import main

if __name__ == "__main__":
    sys.exit(main())
