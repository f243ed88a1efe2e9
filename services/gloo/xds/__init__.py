"""xDS: snapshots in, configuration served to Envoys, their answers reported.

The conversation is a state machine without I/O: ``subscription`` holds what one client asked for, has and
refused of one type; ``sotw`` and ``delta`` speak the two dialects; ``sessions`` keeps a stream's types in
order. ``server`` is the thin shell around them.
"""

from services.gloo.xds.cache import Cache
from services.gloo.xds.client import Observer
from services.gloo.xds.options import Options
from services.gloo.xds.server import XdsServer

__all__ = ["Cache", "Observer", "Options", "XdsServer"]
