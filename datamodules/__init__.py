"""Data: photographs and rendered portraits, degradations, loading."""

import _runtime

_runtime.prepare()
