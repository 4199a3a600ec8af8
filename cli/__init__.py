"""The command line `proxy-rlhf`: one file per command, each a thin typed layer over the room that does the work.

Nothing heavy is imported at the top of a file in here: `--help` must answer in well under a second, without torch.
"""
