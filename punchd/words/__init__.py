"""The vocabulary of punchd: values without behaviour, shared by every floor.
It imports nothing of ours and does nothing."""
