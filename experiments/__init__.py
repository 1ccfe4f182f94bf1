"""The commands people run: fit, evaluate, restore, reproduce, benchmark, import_checkpoint, export, prepare, degrade, portraits, weights"""

import _runtime

_runtime.prepare()
