"""Scores that need more than one answer or another model: judges, consistency, length control.

    base      what a finisher is             registry  from a task's `metadata.finish` to finishers

Import the sub-modules directly; this package imports none of them.
"""
