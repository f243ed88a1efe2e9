"""The contract: the ``.proto`` files of every object in Consul, and the Envoy messages we speak.

The Python classes are generated into ``protos._generated`` by ``protos.generate`` (``make generate``,
or any build of the package) and are never committed. Import them by their short names from
``protos.gateway``, ``protos.gloo`` and ``protos.envoy``.
"""
