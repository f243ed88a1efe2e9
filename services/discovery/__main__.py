"""``python -m services.discovery``"""

import sys

from services.discovery.app import main

sys.exit(main())
