"""Quarantine: what an Envoy refuses goes back to its last good version, alone; all else is served at once.

Translation says what is wanted, Envoys say what they take; between the two stands what is served. Of a
refused resource those parts are suspect that differ from what was accepted last. One is convicted at once.
Of several, those that Envoy's words are found in are left out first, else one half; what is then accepted
is innocent, and if what was left out must be guilty and is one part, it is convicted without being sent
again. A convicted part is held at its last good bytes, or left out when there are none, until it changes.

One Envoy that refuses is enough, unless another one has accepted the very version: then the one that refuses
is on its own, and its refusals of that resource count for nothing until it accepts something. What is held
is held for a role, not for one Envoy, and by every replica: what an Envoy of another one has refused comes
in as ``Heard`` and is held as if it had been refused here, unless an Envoy here has accepted it.

``quarantine`` is the way in. What is said is in ``held``, what is remembered in ``shelf`` and ``case``.
``answers`` weighs an Envoy's yes and no, ``search`` finds the guilty part with the help of ``words``,
``hearing`` agrees with other replicas, and ``stand_ins`` puts together what is served.

Pure: no I/O, and the time comes in as *now*.
"""
