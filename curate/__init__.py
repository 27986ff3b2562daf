"""From collections to a training folder: scores, choices, balance, and views of them.

In the order of the chain: score (scores/), choose (rules/), balance (assemble, history, balance, manifest). To look at:
sheet, trace, explain.
"""
