"""Answers that were made before a run learns from them: how they are gathered, kept and read."""
