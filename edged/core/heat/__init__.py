"""What heat allows: from readings of the board to a level, and from the level to the engine's limits.

    vitals -> trips (which zone is how near) -> sensors (whom to believe) -> slope, levels, control -> policy

Pure values and small state machines that are told the time; no file, thread or logger. `heat.Heat` ties them
together and is what the node, the tests and the simulation all drive.
"""
