"""`report.html`: one run to look at and listen to, in one file that needs no network."""
