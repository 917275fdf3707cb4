"""May this user come in, and how is this room set up? Answers, remembered ones first."""
