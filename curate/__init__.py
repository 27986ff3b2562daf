"""From collections to a training folder: scores, duplicates, choices, balance, and what can be seen of them.

In the order of the chain: score (score, clip, aesthetic, phash), choose (choose, source, dedupe), balance (assemble,
survey, balance). To look at: sheet, trace.
"""
