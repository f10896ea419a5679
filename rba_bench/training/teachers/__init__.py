"""Text models that read the transcripts of the student's audio: teachers of distributions and states, and authors."""
