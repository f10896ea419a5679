"""The static site of a leaderboard: a front page, pages of samples, and the shell that all of them share."""
