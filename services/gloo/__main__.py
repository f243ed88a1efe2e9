"""``python -m services.gloo``."""

import sys

from services.gloo.app import main

sys.exit(main())
