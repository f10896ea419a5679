"""Clips by reference, voices, and seeded damage; a clip in memory is float32 mono, shape [samples]."""
