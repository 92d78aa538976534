"""The daemon's own thread: typed events in, effects out. It owns every job and needs no lock."""
