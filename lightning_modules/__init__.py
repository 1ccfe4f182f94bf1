"""Methods as LightningModules; networks, losses and metrics below are plain torch."""

import _runtime

_runtime.prepare()
