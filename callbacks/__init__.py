"""What happens beside training: metrics, pictures, EMA, checkpoints, progress."""

import _runtime

_runtime.prepare()
