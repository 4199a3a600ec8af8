"""Reward models: a number for an answer to a conversation, learned from preference pairs.

`frozen_head`     a linear head on the frozen LLM's own hidden states: the reward that trains a proxy
`sentence_judge`  a linear head on another encoder's states and on words: the judge that checks the result
`folder`          how either is stored, read and verified

The two share nothing: `preferences.PreferencePair.half` deals the pairs, and the features have no part in common.
"""
