"""``python -m saln`` is ``saln``."""

import sys

from saln.cli import main

sys.exit(main())
