"""From a teacher and a voice bank to an alignment set on disk."""
