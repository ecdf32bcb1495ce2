"""Expert iteration for language models that reason. Start reading at ``training.py``."""
