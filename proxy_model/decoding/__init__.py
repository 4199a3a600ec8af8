"""The one decode loop: requests in, deltas out (`engine`), and replayed text by the same rules (`replay`)."""
