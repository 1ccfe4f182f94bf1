"""Importing a package of the suite first makes lightning importable, in all processes (see _runtime.py)."""

import lightning_modules  # noqa: F401
