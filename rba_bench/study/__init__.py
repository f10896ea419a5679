"""Studies: every method from one base on one alignment set, at equal steps and at equal time, in several seeds."""
