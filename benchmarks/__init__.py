"""Scripts that measure speed as ratios within one run, print a table and write JSON. Never part of the test run."""
