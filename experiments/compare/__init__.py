"""Runs beside each other: `python -m experiments.compare RUN [RUN ...]` writes one page from run folders."""
