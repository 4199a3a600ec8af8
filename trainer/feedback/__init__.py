"""From what people said of stored answers to a better proxy: pairs, the reward model, and then a run as any other.

`pairs`   ratings, corrections and preferences as deduplicated preference pairs
`reward`  the reward model in use, drawn towards what the pairs say
`rounds`  what is on disk of a round, so that a kill at any moment neither loses nor repeats one

Nobody's text is written anywhere: a round keeps the ids of its feedback and reads the text from the store when it needs
it, so what has been deleted, has expired or lost its consent is not learned from, not even by a round that has begun.
What stays of it are the weights of reward models and proxies that learned from it before.
"""
