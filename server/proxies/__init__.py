"""Which proxies are published, loaded and meant: hot reload, aliases, roll-outs."""
