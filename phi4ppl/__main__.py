"""``python -m phi4ppl`` is the command line."""

import sys

from .cli.entry import main

sys.exit(main())
