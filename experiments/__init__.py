"""The commands people run: python -m experiments.fit, evaluate, restore, reproduce, import_checkpoint, export, prepare, degrade, portraits, weights."""

import _runtime

_runtime.prepare()
