"""What strangers can hand to the SDK, under fuzzing."""
