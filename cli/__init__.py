"""The command line `proxy-rlhf`: thin, typed, and quick to answer; whatever is heavy is imported inside of a command."""
