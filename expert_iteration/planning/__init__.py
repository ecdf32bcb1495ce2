"""What a run will do and need, told before it starts: nothing here loads a model or starts a process."""
