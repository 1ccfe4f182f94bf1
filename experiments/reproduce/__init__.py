"""Whole comparisons: `python -m experiments.reproduce TABLE`.

Trains what is missing, then prints a paper's table beside the published one.
"""
