"""Runs beside each other: `python -m experiments.compare RUN [RUN ...]` reads run folders and writes one page."""
