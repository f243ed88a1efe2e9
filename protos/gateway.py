"""The objects that people write: Gateway, VirtualService, RouteTable and their parts."""

from protos._generated.gateway.solo.io import *  # noqa: F403
