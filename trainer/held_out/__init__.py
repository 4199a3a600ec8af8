"""What a run is held against while it trains and before it is published: prompts and a judge that it never learns from.

`config`    which prompts and which judge, the limits of the gates, when to stop early
`examiner`  answers the prompts and measures the answers
`gates`     one pure function a gate, over two measured summaries
"""
