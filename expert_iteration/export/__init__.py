"""From a checkpoint to a folder that others load, and on to the hub."""
