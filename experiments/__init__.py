"""The commands people run: python -m experiments.fit, evaluate, restore, import_checkpoint, export, weights, ..."""

import _runtime

_runtime.prepare()
