"""`python -m brainlit.cli` is `brainlit`."""

import sys

from brainlit.cli import main

sys.exit(main())
