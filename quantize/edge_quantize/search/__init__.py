"""Which recipe, which ranges, what stays in float."""
