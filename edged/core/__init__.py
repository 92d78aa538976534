"""The pure heart: functions of values. No clock, file, socket, thread or logger lives here."""
