"""The objects gloo reads (Proxy, Upstream, …), the options they share with the gateway's, and Settings."""

from protos._generated.gloo.solo.io import *  # noqa: F403
