"""Conviction beside PyTorch, Lightning, fastai and Keras on the same work."""
