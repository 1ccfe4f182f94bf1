"""Importing a package of the suite first makes lightning importable, also in processes that the tests start (see _runtime.py)."""

import lightning_modules  # noqa: F401
