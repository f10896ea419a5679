"""Text models that read what the student hears: as teachers of its distributions and states, and as authors."""
