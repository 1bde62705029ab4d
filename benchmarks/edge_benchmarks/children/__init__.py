"""Programs that run in a process of their own: ``python -m edge_benchmarks.children.NAME``, one line of JSON as answer.

They are measured from outside or measure themselves, so each imports no more than what it is there to measure.
"""
