"""What happens between steps: the log, the display, files for people, alarms."""
