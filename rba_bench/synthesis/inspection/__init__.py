"""Looking at an alignment set: counts, figures, and a page on which its clips play (`rba-bench synth inspect`)."""
