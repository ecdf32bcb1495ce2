"""What a run or a sweep was, told afterwards from its files: pages and pictures without a network."""
