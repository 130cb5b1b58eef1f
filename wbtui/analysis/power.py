"""The exponential function that this CPU does fastest, for sums of a softmax over whole tiles.

torch has ``exp`` and ``exp2``, and which is the faster depends on the instructions at hand: on AVX-512 ``exp`` takes
two thirds of the time at the same error (half a unit in the last place), elsewhere it can take four times as long, or
lose digits where it underflows. The choice hangs on the CPU's kind alone, never on a measurement, so that the last
digits of a machine's numbers stay.
"""

from __future__ import annotations

import math

import torch

BY_E = torch.backends.cpu.get_cpu_capability() == "AVX512"
power = torch.exp if BY_E else torch.exp2
"""``power(x)`` is ``exp(UNIT * x)``; takes ``out``."""
UNIT = 1.0 if BY_E else math.log(2.0)
"""Natural units of one unit of the exponent."""
DEEPEST = -87.0 / UNIT
"""Exponents below it (of ``power``) give numbers that fp32 does not hold in full, at twenty times the time of others.
They add nothing to a sum that holds a 1, so they may be raised to it."""
