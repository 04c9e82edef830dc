"""Spectra: how many features a kernel, a network or a field really has."""
