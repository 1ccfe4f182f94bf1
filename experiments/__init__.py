"""The commands people run: fit, evaluate, restore, invert, edit, directions, reproduce, benchmark, import_checkpoint,
export, prepare, degrade, portraits, weights, compare
"""

import _runtime

_runtime.prepare()
