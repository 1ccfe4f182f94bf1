"""The commands people run, one module or package each; the folders `shared` and `training` serve them."""

import _runtime

_runtime.prepare()
