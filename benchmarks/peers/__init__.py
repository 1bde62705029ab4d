"""The product beside others, each in an environment of its own; for a checkout, never in the wheel."""
