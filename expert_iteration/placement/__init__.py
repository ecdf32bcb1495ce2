"""What each part of a run needs, what nodes have, and where the parts came to be; knows no Ray."""
