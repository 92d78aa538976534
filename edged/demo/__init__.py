"""What `edged demo` is made of, apart from the command itself: a broker, child processes, a table, wrapped text."""
