"""Run records in, tables out: intervals, rank bands, paired differences; and the paper's own numbers."""
