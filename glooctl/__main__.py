"""``python -m glooctl``."""

import sys

from glooctl.app import main

sys.exit(main())
