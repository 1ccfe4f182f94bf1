"""Whole comparisons: `python -m experiments.reproduce TABLE` trains what is missing and prints a paper's table beside the published one."""
