"""Templates and expressions, compiled to data that one Lua program in Envoy runs.

What users write never becomes code: ``runtime.lua`` stands in the listeners, the same for all, and gets a
route's transformations as a JSON document.
"""
