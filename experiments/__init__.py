"""The commands people run: python -m experiments.fit, evaluate, restore."""

import _runtime

_runtime.prepare()
