"""Puts measurements together for `edged calibrate` and `edged bench`: the place, the trials, tables for people."""
