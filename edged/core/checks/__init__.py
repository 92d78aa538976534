"""What `edged doctor` looks at, one small function each: readings in, a verdict with the command that mends it out.

Pure. Readings are taken by adapters and put together in `edged.doctor`; what cannot be read is None here, and
then the verdict says so and counts for nothing.
"""
