"""Degradations of faces: `DEGRADATIONS` maps the name on the command line to its recipe."""

from datamodules.degradations.recipes import DEGRADATIONS, Degradation, Packed, Parameters

__all__ = ["DEGRADATIONS", "Degradation", "Packed", "Parameters"]
