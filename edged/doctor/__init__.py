"""Puts `edged doctor` together: takes the readings, asks the checks in `edged.core.checks`, shows the verdicts."""
