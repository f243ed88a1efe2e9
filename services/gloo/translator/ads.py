"""Where Envoy gets what a resource only names: from us, on the stream it got the resource from."""

from __future__ import annotations

from protos.envoy import core

ADS = core.ConfigSource(ads=core.AggregatedConfigSource(), resource_api_version=core.ApiVersion.V3)
