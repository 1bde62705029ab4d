"""One evaluator per task, found by the task's name."""
