"""Stands in for the package umqtt of MicroPython, so that its example runs under CPython."""
